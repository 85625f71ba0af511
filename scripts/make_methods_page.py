"""Write docs/methods.md from the method table.

python scripts/make_methods_page.py
"""

from collections.abc import Iterator
from pathlib import Path

from evomerge.methods import IGNORED_PARAMETERS, METHODS, SYMBOLS, MethodSpec, ParameterSpec

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"

_BASES = {
    "required": "required",
    "optional": "optional",
    "none": "not used",
}
_FAMILY = (
    ("task_arithmetic", "none", "sum"),
    ("ties", "keep the largest magnitudes", "elected sign"),
    ("breadcrumbs", "keep large magnitudes but the largest", "sum"),
    ("breadcrumbs_ties", "the same", "elected sign"),
    ("dare_linear", "drop at random, rescale", "sum"),
    ("dare_ties", "the same", "elected sign"),
    ("della_linear", "drop at random, small magnitudes more often, rescale", "sum"),
    ("della", "the same", "elected sign"),
)


def page() -> str:
    """Return the text of the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Merge methods"
    yield ""
    yield (
        "Made from the method table by `python scripts/make_methods_page.py`; "
        "`evomerge methods NAME` shows the same in a terminal."
    )
    yield ""
    yield SYMBOLS
    yield ""
    yield "| method | what it does | base_model | models |"
    yield "| --- | --- | --- | --- |"
    for spec in METHODS.values():
        link = f"[`{spec.name}`](#{spec.name})"
        yield f"| {link} | {spec.summary} | {_BASES[spec.base]} | {spec.num_models()} |"
    yield ""
    yield "A parameter *per model* may stand at each model and also, for all at once, at the slice,"
    yield "the module or the top; a *shared* one stands at the slice, the module or the top. Every"
    yield "value may be a gradient or have filters ([merging](merging.md))."
    yield ""
    yield "## The task-vector family"
    yield ""
    yield "Eight methods are one composition, `b + lambda consensus_i(w_i sparsify(d_i))`:"
    yield ""
    yield "| method | sparsify | consensus |"
    yield "| --- | --- | --- |"
    for name, sparsify, consensus in _FAMILY:
        yield f"| `{name}` | {sparsify} | {consensus} |"
    yield ""
    for spec in METHODS.values():
        yield from _section(spec)
    yield "## Accepted without effect"
    yield ""
    yield "| parameter | why |"
    yield "| --- | --- |"
    for name, why in IGNORED_PARAMETERS.items():
        yield f"| `{name}` | {why} |"


def _section(spec: MethodSpec) -> Iterator[str]:
    yield f"## {spec.name}"
    yield ""
    yield f"{spec.summary}."
    yield ""
    yield "```text"
    yield spec.formula
    yield "```"
    yield ""
    yield f"* When: {spec.use}"
    if spec.paper:
        yield f"* Source: {spec.paper}."
    yield f"* Models: {spec.num_models()}; `base_model` {_BASES[spec.base]}{_role(spec)}."
    if spec.random:
        yield "* Random: a function of the seed, the same draw for every candidate of a search."
    yield ""
    if not spec.parameters:
        yield "No parameters."
        yield ""
        return
    yield "| parameter | meaning | for | range | default |"
    yield "| --- | --- | --- | --- | --- |"
    for parameter in spec.parameters:
        scope = "per model" if parameter.per_model else "shared"
        default = "required" if parameter.required else _value(parameter.default)
        cells = (f"`{parameter.name}`", parameter.help, scope, _range(parameter), default)
        yield f"| {' | '.join(cells)} |"
    yield ""


def _role(spec: MethodSpec) -> str:
    if spec.base == "none":
        return ""
    if spec.base_is_source:
        return ", one of the models that are merged"
    return ", what the task vectors are differences to"


def _range(parameter: ParameterSpec) -> str:
    if parameter.kind == "bool":
        return "true, false"
    if parameter.kind == "choice":
        return ", ".join(parameter.choices)
    kind = "whole number" if parameter.kind == "int" else "number"
    if parameter.low is None and parameter.high is None:
        return f"any {kind}"
    if parameter.high is None:
        return f"{kind} from {parameter.low:g}"
    if parameter.low is None:
        return f"{kind} up to {parameter.high:g}"
    return f"{kind} from {parameter.low:g} to {parameter.high:g}"


def _value(value: float | bool | str | None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
