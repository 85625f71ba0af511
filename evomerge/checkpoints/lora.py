"""A PEFT LoRA adapter on disk: which tensors it changes and how, and the change itself.

The format is what `peft` writes: `adapter_config.json` and `adapter_model.safetensors`, whose names
are those of the model's modules behind `base_model.model.`.

LoRA, https://arxiv.org/abs/2106.09685: W' = W + (alpha / r) B A.
rsLoRA, https://arxiv.org/abs/2312.03732: alpha / sqrt(r) instead.
DoRA, https://arxiv.org/abs/2402.09353: W' = m (W + s B A) / |W + s B A|, a norm for each output.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints.expert_lora import ExpertPair, ExpertProduct
from evomerge.checkpoints.header import TensorInfo, read_header
from evomerge.checkpoints.tokenizer import read_json
from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = [
    "ADAPTER_CONFIG",
    "Adapter",
    "Change",
    "LowRank",
    "apply_low_rank",
    "is_adapter",
    "read_adapter",
]

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_ROWS = 1 << 20
"""Elements of a product that are computed at a time."""

# The names that peft gives to what it adds to a module; the adapter's own name is not saved.
_PART = re.compile(
    r"^(?P<module>.+?)\.(?:default\.)?(?P<part>"
    r"lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector|token_adapter\.trainable_tokens_delta)(?:\.weight)?$"
)
_TOKENS = "token_adapter.trainable_tokens_delta"
_WRAPPED = re.compile(r"\.(base_layer|original_module|modules_to_save)(?=\.)")

# Keys that mean another forward pass when they are set, and no plain change of the weights.
_OTHER_FORMS = (
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
)
# Their start moves a part of the base model into the adapter, which is a difference to the rest.
_MOVED_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga")
_MERGE_FIRST = "merge it into its model with peft's merge_and_unload, and name the result here"


@dataclass(frozen=True, slots=True)
class LowRank:
    """A product of two thin matrices that is added to a weight.

    Attributes:
        a: Name of the adapter's tensor of shape (r, inputs).
        b: Name of the one of shape (outputs, r).
        scale: The factor of the product.
        magnitude: Name of DoRA's length of each output, or None.
        embedding: Whether the weight is an embedding, stored as (inputs, outputs).
    """

    a: str
    b: str
    scale: float
    magnitude: str | None
    embedding: bool


@dataclass(slots=True)
class Change:
    """What an adapter does to one tensor; the parts apply in this order.

    Attributes:
        replaced_by: Name of the adapter's tensor that stands in its place.
        low_rank: What is added to it.
        added: Name of the adapter's tensor that is added, and its factor.
        rows: Name of the adapter's tensor that replaces some rows, and their numbers.
        experts: What is added to the weights of experts.
    """

    replaced_by: str | None = None
    low_rank: LowRank | None = None
    added: tuple[str, float] | None = None
    rows: tuple[str, tuple[int, ...]] | None = None
    experts: ExpertProduct | None = None


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, opened by reading its header only.

    Attributes:
        name: As the user calls it.
        path: Its folder.
        tensors: What it holds.
        changes: By the name that the changed tensor has in the model; a checkpoint may name it
            otherwise.
        fan_in_fan_out: Whether weights are stored as (inputs, outputs) where shapes leave it open.
        stays_tied: Whether a change of a tied embedding is one of the head too.
        experts: Changes of the parameters of experts, whose tensors show in the model's files.
    """

    name: str
    path: Path
    tensors: Mapping[str, TensorInfo]
    changes: Mapping[str, Change]
    fan_in_fan_out: bool
    stays_tied: bool = field(default=False)
    experts: tuple[ExpertPair, ...] = ()

    def identity(self) -> str:
        """Return what its effect depends on beside its tensors."""
        lines = [f"{name} {change}" for name, change in sorted(self.changes.items())]
        return "\n".join([*lines, *(str(pair) for pair in self.experts)])


def is_adapter(path: Path) -> bool:
    """Return whether a folder holds an adapter and no whole model."""
    return (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()


def read_adapter(name: str, path: Path) -> Adapter:
    """Open the folder of an adapter.

    Raises:
        CheckpointError: if it is no LoRA adapter, damaged, or of a kind that is no plain change
            of the weights.
    """
    if not (path / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{name}: no adapter: {ADAPTER_CONFIG} is missing in {path}")
    config = read_json(path / ADAPTER_CONFIG)
    _check_kind(name, config)
    if not (path / _WEIGHTS).is_file():
        others = [file.name for file in sorted(path.glob("adapter_model.*"))]
        hint = f" (there is {others[0]}: convert it to safetensors)" if others else ""
        raise CheckpointError(f"{name}: no adapter: {_WEIGHTS} is missing in {path}{hint}")
    tensors = read_header(path / _WEIGHTS)
    experts = _expert_pairs(name, config, tensors)
    taken = {stored for pair in experts for stored in (pair.a, pair.b)}
    rest = {stored: info for stored, info in tensors.items() if stored not in taken}
    return Adapter(
        name,
        path,
        tensors,
        _changes(name, config, rest),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        stays_tied=bool(config.get("ensure_weight_tying")),
        experts=experts,
    )


def _check_kind(name: str, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{name}: an adapter of type {kind}, expected LORA; {_MERGE_FIRST}")
    other = next((key for key in _OTHER_FORMS if config.get(key)), None)
    if other is not None:
        raise CheckpointError(
            f"{name}: a LoRA adapter with {other}, which is no change of single tensors; "
            + _MERGE_FIRST
        )
    start = str(config.get("init_lora_weights", True))
    if _MOVED_BASE.match(start):
        raise CheckpointError(
            f"{name}: a LoRA adapter that began with {start!r} belongs to a changed base model; "
            "save it with peft's path_initial_model_for_weight_conversion, or " + _MERGE_FIRST
        )


def _expert_pairs(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[ExpertPair, ...]:
    """Return the pairs of parameters that the adapter's config names (`target_parameters`)."""
    targets = [target.rpartition(".") for target in config.get("target_parameters") or ()]
    if not targets:
        return ()
    parts: dict[str, dict[str, str]] = {}
    for stored in tensors:
        found = _PART.match(stored.removeprefix(_PREFIX))
        if found is not None:
            parts.setdefault(found["module"], {})[found["part"]] = stored
    pairs = []
    for wrapped, held in parts.items():
        module = _WRAPPED.sub("", wrapped + ".")[:-1]
        alphas = {
            parameter: _alpha(config, f"{module}.{parameter}")
            for of, _, parameter in sorted(targets)
            if not of or module == of or module.endswith(f".{of}")
        }
        if not alphas:
            continue
        pair = _pair(name, held)
        if pair is None or len(held) > 2:
            raise CheckpointError(
                f"{name}: the adapter's tensors of {module} are of an unknown kind; {_MERGE_FIRST}"
            )
        pairs.append(ExpertPair(module, alphas, *pair, bool(config.get("use_rslora"))))
    return tuple(pairs)


def _changes(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    parts: dict[str, dict[str, str]] = {}
    for stored in tensors:
        short = stored.removeprefix(_PREFIX)
        found = _PART.match(short)
        if found is not None:
            module = _WRAPPED.sub("", found["module"] + ".")[:-1]
            parts.setdefault(module, {})[found["part"]] = stored
        elif "lora_" in short or "token_adapter" in short:
            raise CheckpointError(
                f"{name}: the adapter's tensor {stored!r} is of an unknown kind; {_MERGE_FIRST}"
            )
        else:
            plain = _WRAPPED.sub("", short).replace(".default.", ".")
            changes.setdefault(plain, Change()).replaced_by = stored
    for module, held in parts.items():
        weight = changes.setdefault(f"{module}.weight", Change())
        weight.rows = _rows(name, config, tensors, module, held.get(_TOKENS))
        weight.low_rank = change = _low_rank(name, config, tensors, module, held)
        if change is not None and "lora_B.bias" in held:
            bias = changes.setdefault(f"{module}.bias", Change())
            bias.added = (held["lora_B.bias"], change.scale)
    return changes


def _rows(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    module: str,
    stored: str | None,
) -> tuple[str, tuple[int, ...]] | None:
    """Return the trained rows of an embedding and their numbers."""
    if stored is None:
        return None
    listed = config.get("trainable_token_indices") or ()
    if isinstance(listed, Mapping):
        names = [key for key in listed if module == key or module.endswith(f".{key}")]
        listed = listed[names[0]] if names else ()
    indices = tuple(int(index) for index in listed)
    if len(indices) != tensors[stored].shape[0]:
        raise CheckpointError(
            f"{name}: {stored!r} has {tensors[stored].shape[0]} rows, and trainable_token_indices "
            f"names {len(indices)}; save the adapter again"
        )
    return stored, indices


def _low_rank(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    module: str,
    parts: Mapping[str, str],
) -> LowRank | None:
    pair = _pair(name, parts)
    if pair is None:
        return None
    rank = tensors[pair[0]].shape[0]
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    scale = _alpha(config, module) / divisor
    magnitude = parts.get("lora_magnitude_vector")
    return LowRank(*pair, scale, magnitude, "lora_embedding_A" in parts)


def _pair(name: str, parts: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the names of A and B among the adapter's tensors for one module."""
    for a, b in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
        if (a in parts) != (b in parts):
            there, lost = (a, b) if a in parts else (b, a)
            raise CheckpointError(
                f"{name}: the adapter has {parts[there]!r} but no {lost} beside it; copy or "
                "download it again"
            )
        if a in parts:
            return parts[a], parts[b]
    return None


def _alpha(config: Mapping[str, Any], module: str) -> float:
    """Return the alpha of a module; keys of `alpha_pattern` are expressions for the names' ends."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(alpha)
    return float(config.get("lora_alpha", 8))


def apply_low_rank(
    weight: "torch.Tensor",
    change: LowRank,
    read: Callable[[str], "torch.Tensor"],
    *,
    transposed: bool,
) -> None:
    """Add a product to a weight in place.

    The product is accumulated in float64, a few rows at a time, and rounded once, so that the
    order of its sums does not show in the result.

    Args:
        weight: Shape (outputs, inputs, …), or (inputs, outputs) if transposed.
        change: What to add.
        read: Reads one of the adapter's tensors.
        transposed: Whether the weight is stored with its inputs first.
    """
    a = read(change.a).double().flatten(1)
    b = read(change.b).double().flatten(1) * change.scale
    lengths = read(change.magnitude).double().flatten() if change.magnitude else None
    if transposed and lengths is None:  # (B A)' = A' B', in the order of the memory
        a, b, transposed = b.mT, a.mT, False
    view = weight.mT if transposed else weight.view(weight.shape[0], -1)
    step = max(1, _ROWS // max(1, view.shape[1]))
    for start in range(0, view.shape[0], step):
        rows = view[start : start + step]
        total = rows.double().addmm_(b[start : start + step], a)
        if lengths is not None:
            norm = total.norm(dim=1)
            total *= (lengths[start : start + step] / norm).unsqueeze(1)
        rows.copy_(total)
