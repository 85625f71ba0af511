"""A run's Pareto front as models on disk: a folder each, and a table of what they are."""

import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.writing import check_free
from evomerge.errors import StudyError
from evomerge.export.merging import export_run
from evomerge.export.scores import read_result
from evomerge.export.staging import ByteProgress, StageStart
from evomerge.version import __version__

if TYPE_CHECKING:
    from evomerge.search import TrialRecord

__all__ = ["export_front"]

_WHAT_IT_IS = (
    "Of these models none is better than another in one objective without being worse in another. "
    "Scores are on held-out items, mean ± standard error; what lies within the errors may change "
    "places."
)
_WHO_SURPASSES = "`surpassed by` names baselines that are nowhere worse and somewhere better."
_WHAT_IT_SAYS = (
    "The winner is the best finalist in the first objective. Each folder has weights, tokenizer, "
    "`recipe.yml` and a card."
)


def export_front(
    run: str | Path,
    out: str | Path,
    *,
    progress: ByteProgress | None = None,
    on_member: StageStart | None = None,
) -> "tuple[TrialRecord, ...]":
    """Write every member of a run's held-out Pareto front to ``out/trial-N``.

    Beside them stand ``README.md``, a table of their objectives with standard errors and the
    baselines', and the same as ``pareto.json``. All of it appears together, or nothing does.

    Args:
        run: Run directory.
        out: New or empty directory.
        progress: Who watches the bytes of each member.
        on_member: Told before each member: its number from 1, how many there are, its label.

    Returns:
        The exported trials.

    Raises:
        EvomergeError: with nothing written.
    """
    from evomerge.search import open_run

    opened = open_run(run)
    if len(opened.space.document.objective) < 2:
        raise StudyError(
            f"{run}: a Pareto front needs several objectives, this run has one; export the winner "
            "without --trial"
        )
    opened.trial()  # refuses a run that has no winner yet
    result = read_result(opened)
    members = [opened.trial(int(entry["trial"])) for entry in result["pareto_front"]]
    out = Path(out).absolute()
    check_free(out)
    beside = out.with_name(f"{out.name}.front-{secrets.token_hex(4)}")
    try:
        for place, record in enumerate(members, start=1):
            if on_member is not None:
                on_member(place, len(members), record.label)
            export_run(run, beside / _folder(record), trial=record.number, progress=progress)
        index = front_index(result, members)
        (beside / "pareto.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(_page(index), encoding="utf-8")
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return tuple(members)


def _folder(record: "TrialRecord") -> str:
    return f"trial-{record.number}"


def front_index(result: dict[str, Any], members: "Sequence[TrialRecord]") -> dict[str, Any]:
    """Return what the table says, as plain data.

    Args:
        result: The content of ``result.json``.
        members: The trials of its ``pareto_front``.
    """
    folders = {record.number: _folder(record) for record in members}
    front = [
        {
            "folder": folders[entry["trial"]],
            "trial": entry["trial"],
            "winner": entry["trial"] == result["winner"]["trial"],
            "objectives": entry["holdout"]["objectives"],
            "surpassed_by": entry.get("surpassed_by", []),
            **({"constraints": entry["constraints"]} if "constraints" in entry else {}),
        }
        for entry in result["pareto_front"]
    ]
    baselines = [
        {"name": each["name"], "kind": each["kind"], "objectives": each["holdout"]["objectives"]}
        for each in result["baselines"]
        if each["holdout"] and each["trial"] not in folders
    ]
    return {
        "space": result["space"],
        "seed": result["seed"],
        "items": "held-out",
        "front": front,
        "baselines": baselines,
    }


def _page(index: dict[str, Any]) -> str:
    names = list(index["front"][0]["objectives"])
    constraints = any("constraints" in each for each in index["front"])
    surpassed = any(each["surpassed_by"] for each in index["front"])
    extra = ["constraints"] * constraints + ["surpassed by"] * surpassed
    head = ["model", *names, *extra]
    lines = [
        f"# Pareto front of {index['space']}",
        "",
        _WHAT_IT_IS,
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
    ]
    for each in index["front"]:
        name = f"[{each['folder']}]({each['folder']})" + (" (winner)" if each["winner"] else "")
        cells = [name, *_cells(each)]
        if constraints:
            held = all(verdict["holds"] for verdict in each.get("constraints", ()))
            cells.append("hold" if held else "**violated**")
        if surpassed:
            cells.append(", ".join(f"`{label}`" for label in each["surpassed_by"]))
        lines.append("| " + " | ".join(cells) + " |")
    for each in index["baselines"]:
        cells = [f"`{each['name']}` ({each['kind']})", *_cells(each), *[""] * len(extra)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [_WHO_SURPASSES] if surpassed else []
    notes += [_WHAT_IT_SAYS, f"Searched with seed {index['seed']} by evomerge {__version__}."]
    return "\n".join([*lines, "", " ".join(notes), ""])


def _cells(entry: dict[str, Any]) -> list[str]:
    return [f"{e['value']:.3f} ± {e['stderr']:.3f}" for e in entry["objectives"].values()]
