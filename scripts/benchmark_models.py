"""What the benchmarks share: checkpoints to merge, and a usual recipe for every merge method.

Recipes come from the method table alone, so a new row of it is measured without a change here.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from evomerge.methods import METHODS, MethodSpec, ParameterSpec

BASE = "base"
VARIANTS = ("one", "two", "three")
PARAMETERS = 160e6


def config(num_parameters: float) -> dict[str, Any]:
    """Return the config of a Llama with about so many parameters: hidden size 768 for 160M.

    Embedding and head take 2 x 41.7 h^2 elements for the hidden size h, each of 12 layers 16 h^2.
    """
    hidden = max(16, round(math.sqrt(num_parameters / (12 * 16 + 2 * 41.7)) / 16) * 16)
    heads = max(1, hidden // 64)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": 12,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": round(hidden * 32000 / 768),
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
    }


def shapes(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors of a config."""
    hidden, wide = settings["hidden_size"], settings["intermediate_size"]
    vocab = settings["vocab_size"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(settings["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for part in "qkvo":
            found[f"{layer}.self_attn.{part}_proj.weight"] = (hidden, hidden)
        for part in ("gate", "up"):
            found[f"{layer}.mlp.{part}_proj.weight"] = (wide, hidden)
        found[f"{layer}.mlp.down_proj.weight"] = (hidden, wide)
        for part in ("input", "post_attention"):
            found[f"{layer}.{part}_layernorm.weight"] = (hidden,)
    return {**found, "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def make_checkpoints(folder: Path, num_parameters: float) -> None:
    """Write a base and three variants of it, bfloat16, as folders below `folder`.

    Weights are normal with deviation 0.02, a variant's differences to the base with 0.002. Imports
    torch.
    """
    import torch
    from safetensors.torch import save_file

    settings = config(num_parameters)
    for i, name in enumerate((BASE, *VARIANTS)):
        base, noise = (torch.Generator().manual_seed(seed) for seed in (0, i))
        tensors = {}
        for key, shape in shapes(settings).items():
            weight = torch.empty(shape).normal_(0.0, 0.02, generator=base)
            if i:
                weight += torch.empty(shape).normal_(0.0, 0.002, generator=noise)
            tensors[key] = weight.bfloat16()
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(settings, indent=2))
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})


@contextmanager
def checkpoints(folder: Path | None, num_parameters: float) -> Iterator[Path]:
    """Make the checkpoints, in a process of its own so that its memory is not counted here.

    Args:
        folder: Where; by default a temporary folder.
        num_parameters: How large.

    Yields:
        The folder that holds them; they are deleted in the end.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="merge-benchmark-", dir=folder) as made:
        subprocess.run([sys.executable, __file__, made, str(num_parameters)], check=True)
        yield Path(made)


def recipe(method: MethodSpec, folder: Path, candidate: int = 0) -> dict[str, Any]:
    """Return a recipe with usual parameters, for as many of the models as the method takes.

    Args:
        method: The method's row.
        folder: Where the checkpoints are.
        candidate: Another number gives other values of every continuous parameter.
    """
    base = str(folder / BASE)
    names = [str(folder / name) for name in VARIANTS]
    listed = method.base == "required" and method.base_is_source
    room = method.max_models or len(names) + 1
    names = names[: room - (method.base == "required")]
    if listed:
        names = [base, *names]
    models = []
    for i, name in enumerate(names):
        own = {
            spec.name: _value(spec, candidate, i) for spec in method.parameters if spec.per_model
        }
        models.append({"model": name, **({"parameters": own} if own else {})})
    shared = {
        spec.name: _value(spec, candidate, 0) for spec in method.parameters if not spec.per_model
    }
    data: dict[str, Any] = {"merge_method": method.name}
    if method.base == "required":
        data["base_model"] = base
    data["models"] = models
    if shared:
        data["parameters"] = shared
    return data


def _value(spec: ParameterSpec, candidate: int, model: int) -> float | bool | str:
    usual = spec.usual
    if spec.kind != "float" or isinstance(usual, (bool, str)):
        return usual
    # A little towards the middle of what is legal, by steps that never meet another candidate's.
    goal = 0.5 if spec.low is None or spec.high is None else (spec.low + spec.high) / 2
    if usual == goal:
        goal = usual * 0.8
    return float(usual + (goal - usual) * (0.03 * model + 0.004 * candidate) / (1 + candidate / 50))


def chosen(names: Sequence[str] | None) -> list[MethodSpec]:
    """Return the rows of these names, or all.

    Raises:
        SystemExit: if there is no such method.
    """
    unknown = [name for name in names or () if name not in METHODS]
    if unknown:
        raise SystemExit(f"unknown method {unknown[0]!r} (there are {', '.join(METHODS)})")
    return [METHODS[name] for name in names or METHODS]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first column left and the others right."""
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    Console(width=max(console.width, 120)).print(table)


if __name__ == "__main__":
    make_checkpoints(Path(sys.argv[1]), float(sys.argv[2]))
