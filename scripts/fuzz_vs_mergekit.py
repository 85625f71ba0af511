"""Merges random recipes with mergekit and with evomerge, and compares every tensor.

The recipes are drawn from the method table: every method, its parameters as numbers, gradients and
filters, at a model, a slice, a module or the top, over whole models and over slices. Random methods
are drawn with density 1, at which they are not random. What one of the two refuses is listed.

mergekit runs from the Python that is named, which needs it installed:

    python -m venv /tmp/mergekit && /tmp/mergekit/bin/pip install mergekit==0.1.5
    python scripts/fuzz_vs_mergekit.py /tmp/mergekit/bin/python
    python scripts/fuzz_vs_mergekit.py /tmp/mergekit/bin/python --methods ties,sce --recipes 500
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmark_models import print_table
from safetensors.torch import load_file
from tokenizers import Tokenizer

from evomerge.errors import EvomergeError
from evomerge.export import merge_recipe
from evomerge.methods import METHODS, MethodSpec, ParameterSpec

MODELS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
FAMILIES: Mapping[str, tuple[int, Sequence[str]]] = {
    "llama": (4, ("llama_base", "llama_a", "llama_b", "llama_c")),
    "llama2": (2, ("llama2_base", "llama2_a", "llama2_b", "llama2_c")),
    "qwen3": (2, ("qwen3_base", "qwen3_a", "qwen3_b")),
    "tied": (2, ("tied_base", "tied_a", "tied_b")),
}
"""Name -> number of layers, and the checkpoints, the base first."""
VOCABULARIES = (2, ("llama2_base", "llama2_a", "llama2_c"))
OTHER_VOCABULARIES = ("llama2_vb", "llama2_vb_extra", "llama2_vb_padded")
"""One of these joins those above, which then need a `tokenizer`."""
WITHOUT_TOKENIZER = frozenset({"passthrough"})
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")
FILTERS = ("self_attn", "mlp", "q_proj", "layernorm", "embed_tokens", "lm_head", "layers.1.", "*")
RANGES: Mapping[str, tuple[float, float]] = {
    "weight": (-0.4, 1.4),
    "density": (0.05, 1.0),
    "gamma": (0.0, 0.3),
    "lambda": (0.2, 1.8),
    "t": (0.0, 1.0),
    "scale": (-1.0, 2.0),
    "r": (0.0, 0.5),
    "alpha": (0.0, 0.5),
    "select_topk": (0.05, 1.0),
}
"""Parameter -> what is drawn, where that is narrower than what is legal."""
ON_ARCS = frozenset({"nuslerp", "multislerp"})
POSITIVE = (0.1, 1.4)
"""Weights that nearly cancel name a point far outside of the arc; a sum near 0 divides badly."""
KEPT = frozenset({"rescale_norm", "epsilon", "eps", "tol", "max_iter", "int8_mask", "embed_slerp"})
"""Parameters that keep their defaults: evomerge's own, those that only density < 1 needs, and
those that say how exact a result is."""
TOKENIZERS = 0.15
"""Share of the recipes that bring models of several vocabularies together."""
EXACT = 2e-6
"""Error that is allowed in float32, as a share of the largest element, or of 1."""
NARROW = 2**-8
"""The same for a result in bfloat16: one unit in the last place."""
FEW: Mapping[str, int] = {"arcee_fusion": 2}
"""Method -> elements of a tensor that may differ, where it takes them by a computed threshold."""

RUNNER = """
import logging, os, sys
from pathlib import Path
import torch, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
logging.disable(logging.CRITICAL)
sys.stderr = open(os.devnull, "w")
options = MergeOptions(random_seed=0, write_model_card=False, copy_tokenizer=False, quiet=True)
for path in sorted(Path(sys.argv[1]).glob("*.yml")):
    out = path.with_suffix(".mergekit")
    try:
        config = MergeConfiguration.model_validate(yaml.safe_load(path.read_text()))
        run_merge(config, str(out), options)
    except Exception as error:
        out.mkdir(exist_ok=True)
        reason = str(error).strip() or type(error).__name__
        (out / "error.txt").write_text(reason)
    print(path.stem, flush=True)
"""


class Recipes:
    """Draws recipes.

    Args:
        seed: Of everything that is drawn.
        methods: The methods to draw from.
    """

    def __init__(self, seed: int, methods: Sequence[MethodSpec]) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._methods = methods
        self._is_signed = False

    def next(self) -> dict[str, Any]:
        """Return one recipe, its models relative to the folder of the golden models."""
        draw = self._draw
        spec = draw.choice(self._methods)
        has_tokenizer = draw.random() < TOKENIZERS and spec.name not in WITHOUT_TOKENIZER
        layers, names = VOCABULARIES if has_tokenizer else FAMILIES[draw.choice(list(FAMILIES))]
        base, *others = names
        if has_tokenizer:
            others.append(draw.choice(OTHER_VOCABULARIES))
        others = draw.sample(others, len(others))
        recipe: dict[str, Any] = {"merge_method": spec.name}
        self._is_signed = draw.random() < 0.4
        models = self._models(spec, base, others)
        if spec.base == "required" or (spec.base == "optional" and draw.random() < 0.4):
            recipe["base_model"] = base
        shared = {}
        for parameter in spec.parameters:
            # A base that is one more input has no entry of its own.
            is_for_base = parameter.required and spec.base == "optional" and spec.base_is_source
            if parameter.name not in KEPT and (
                not parameter.per_model or is_for_base or draw.random() < 0.3
            ):
                self._give(shared, parameter, spec)
        if draw.random() < 0.3:
            # There a slice must list the base.
            listed = [base, *models] if "base_model" in recipe and base not in models else models
            recipe["slices"] = [
                self._slice(spec, listed, base, layers) for _ in range(draw.choice([1, 2, 3]))
            ]
        else:
            recipe["models"] = [self._model(spec, name, base) for name in models]
        if shared:
            recipe["parameters"] = shared
        if has_tokenizer:
            recipe["tokenizer"] = self._tokenizer(spec, recipe, models)
        recipe["dtype"] = "float32"
        if draw.random() < 0.15:
            recipe["out_dtype"] = "bfloat16"
        return recipe

    def _tokenizer(
        self, spec: MethodSpec, recipe: Mapping[str, Any], models: list[str]
    ) -> dict[str, Any]:
        """Return where the tokenizer comes from, and some tokens' own rules."""
        draw = self._draw
        # Without a base, whose tokenizer `base` is varies from run to run there.
        known = ["union", models[-1], *(["base"] if "base_model" in recipe else [])]
        tokenizer: dict[str, Any] = {"source": draw.choice(known)}
        # Rows that are copies have equal magnitudes, of which a threshold takes any.
        has_copies = not any(p.name in ("density", "select_topk") for p in spec.parameters)
        if has_copies and draw.random() < 0.3:
            tokenizer["pad_to_multiple_of"] = draw.choice([8, 32])
        sources: list[Any] = [
            models[-1],
            {"kind": "zero"},
            {"kind": "model_token", "model": models[-1], "token": "</s>"},
            {"kind": "model_token", "model": models[-1], "token_id": 9},
        ]
        if has_copies and draw.random() < 0.4:
            rule: dict[str, Any] = {"source": draw.choice(sources)}
            if draw.random() < 0.5:
                rule["force"] = True
            tokenizer["tokens"] = {draw.choice(["<s>", "</s>", "the"]): rule}
        return tokenizer

    def _models(self, spec: MethodSpec, base: str, others: list[str]) -> list[str]:
        """Return the models to list; the base is one of them where it must or may be."""
        draw = self._draw
        counts_base = spec.base == "required"
        fewest = max(spec.min_models - counts_base, 1)
        most = min(len(others), (spec.max_models or 99) - counts_base)
        chosen = others[: draw.randint(min(fewest, most), most)]
        if spec.base_is_source and spec.base == "required":
            chosen.insert(draw.randint(0, len(chosen)), base)
        elif spec.base == "required" and draw.random() < 0.2:
            chosen.insert(0, base)
        return chosen

    def _model(self, spec: MethodSpec, name: str, base: str) -> dict[str, Any]:
        parameters: dict[str, Any] = {}
        for parameter in spec.parameters:
            wanted = parameter.required or self._draw.random() < 0.5
            if parameter.per_model and parameter.name not in KEPT and wanted and name != base:
                self._give(parameters, parameter, spec)
        return {"model": name} | ({"parameters": parameters} if parameters else {})

    def _slice(self, spec: MethodSpec, models: list[str], base: str, layers: int) -> dict[str, Any]:
        draw = self._draw
        length = draw.randint(1, layers)
        sources = []
        for name in models:
            start = draw.randint(0, layers - length)
            sources.append(
                {**self._model(spec, name, base), "layer_range": [start, start + length]}
            )
        found: dict[str, Any] = {"sources": sources}
        shared: dict[str, Any] = {}
        for parameter in spec.parameters:
            if parameter.name not in KEPT and draw.random() < 0.25:
                self._give(shared, parameter, spec)
        return found | ({"parameters": shared} if shared else {})

    def _give(self, parameters: dict[str, Any], parameter: ParameterSpec, spec: MethodSpec) -> None:
        if spec.random and parameter.name == "density":
            parameters[parameter.name] = 1.0
            return
        if self._is_signed and parameter.name == "normalize":
            parameters[parameter.name] = False
            return
        kind = self._draw.random()
        if kind < 0.5 or parameter.kind == "choice":
            parameters[parameter.name] = self._value(parameter, spec)
        elif kind < 0.75 and parameter.kind == "float":
            anchors = [self._value(parameter, spec) for _ in range(self._draw.randint(2, 4))]
            parameters[parameter.name] = anchors
        else:
            chosen = self._draw.sample(FILTERS, self._draw.randint(1, 3))
            rows = [{"filter": each, "value": self._value(parameter, spec)} for each in chosen]
            if self._draw.random() < 0.8:
                rows.append({"value": self._value(parameter, spec)})
            parameters[parameter.name] = rows

    def _value(self, parameter: ParameterSpec, spec: MethodSpec) -> Any:
        if parameter.kind == "bool":
            return self._draw.random() < 0.5
        if parameter.kind == "choice":
            return self._draw.choice(parameter.choices)
        legal = (parameter.low or 0.0, parameter.high or 1.0)
        # What is divided by a sum near 0 is as good as random.
        is_share = spec.name in ON_ARCS or (parameter.name == "weight" and not self._is_signed)
        low, high = POSITIVE if is_share else RANGES.get(parameter.name, legal)
        if parameter.kind == "int":
            return self._draw.randint(int(low), int(high))
        return round(self._draw.uniform(low, high), 3)


@dataclass(frozen=True)
class Outcome:
    """What became of one recipe.

    Attributes:
        kind: ``equal``, ``different``, ``refused here``, ``refused there`` or ``refused by both``.
        message: What differs, or who refused and why.
    """

    kind: str
    message: str = ""


def compare(config: Path, few: int) -> Outcome:
    """Merge a recipe here and compare it with what mergekit made of it.

    Args:
        config: The recipe; mergekit's result lies beside it.
        few: Elements of a tensor that may differ.
    """
    theirs, ours = config.with_suffix(".mergekit"), config.with_suffix(".evomerge")
    refusal = (theirs / "error.txt").read_text() if (theirs / "error.txt").exists() else None
    try:
        merge_recipe(str(config), str(ours), seed=0)
    except EvomergeError as error:
        if refusal is not None:
            return Outcome("refused by both", f"{error}\n    there: {refusal}")
        return Outcome("refused here", str(error))
    if refusal is not None:
        return Outcome("refused there", refusal)
    differences = [*_tensors(ours, theirs, few), *_configs(ours, theirs)]
    return Outcome("different", "; ".join(differences)) if differences else Outcome("equal")


def _tensors(ours: Path, theirs: Path, few: int) -> list[str]:
    mine, other = _load(ours), _load(theirs)
    if mine.keys() != other.keys():
        return [f"tensors: {sorted(mine.keys() ^ other.keys())[:4]}"]
    found = []
    rows = _rows(ours, theirs)
    for name, tensor in mine.items():
        wanted = other[name]
        if rows is not None and name in EMBEDDINGS and tensor.shape == wanted.shape:
            wanted = wanted.clone()
            wanted[rows[0]] = other[name][rows[1]]
        if tensor.dtype != wanted.dtype or tensor.shape != wanted.shape:
            found.append(f"{name}: {tensor.dtype} {list(tensor.shape)}, there {wanted.dtype}")
            continue
        largest = max(float(wanted.abs().max()), 1.0)
        allowed = largest * (EXACT if tensor.dtype == torch.float32 else NARROW)
        errors = (tensor.double() - wanted.double()).abs()
        wrong = int((~(errors <= allowed)).sum())
        if wrong > few:
            found.append(f"{name}: {wrong} elements off by up to {float(errors.max()):.2g}")
    return found[:3] + ([f"and {len(found) - 3} more"] if len(found) > 3 else [])


def _rows(ours: Path, theirs: Path) -> tuple[list[int], list[int]] | None:
    """Return the rows of all tokens here and there; ids of added tokens vary from run to run there.

    None where the two have no tokenizers, or not the same tokens.
    """
    files = [each / "tokenizer.json" for each in (ours, theirs)]
    if not all(file.exists() for file in files):
        return None
    mine, other = (Tokenizer.from_file(str(file)).get_vocab() for file in files)
    if mine.keys() != other.keys():
        return None
    return list(mine.values()), [other[token] for token in mine]


def _configs(ours: Path, theirs: Path) -> list[str]:
    mine, other = (json.loads((each / "config.json").read_text()) for each in (ours, theirs))
    keys = ("num_hidden_layers", "vocab_size", "model_type", "architectures")
    return [
        f"{key}: {mine.get(key)!r}, there {other.get(key)!r}"
        for key in keys
        if mine.get(key) != other.get(key)
    ]


def _load(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def main() -> None:
    """Draw, merge twice, compare, print; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", type=Path, help="a Python that has mergekit")
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", help="by default all", type=lambda text: text.split(","))
    options = parser.parse_args()
    specs = [METHODS[name] for name in options.methods or METHODS]
    recipes = Recipes(options.seed, specs)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory(prefix="evomerge-fuzz-") as name:
        folder = Path(name)
        for model in MODELS.iterdir():
            (folder / model.name).symlink_to(model)
        made = [recipes.next() for _ in range(options.recipes)]
        for number, recipe in enumerate(made):
            text = yaml.safe_dump(recipe, sort_keys=False)
            (folder / f"{number:04d}.yml").write_text(text, encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
        command = [str(options.python.absolute()), "-c", RUNNER, str(folder)]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        os.chdir(folder)
        for config in sorted(folder.glob("*.yml")):
            recipe = made[int(config.stem)]
            method = recipe["merge_method"]
            outcome = compare(config, FEW.get(method, 0))
            counts[method][outcome.kind] += 1
            if outcome.kind != "equal":
                print(f"{config.stem} {outcome.kind}: {outcome.message}")
                print("   ", json.dumps(recipe), flush=True)
    kinds = ("equal", "different", "refused here", "refused there", "refused by both")
    print_table(
        ("method", *kinds),
        [(name, *(str(counts[name][kind] or "") for kind in kinds)) for name in sorted(counts)],
    )
    sys.exit(any(each["different"] or each["refused here"] for each in counts.values()))


if __name__ == "__main__":
    main()
