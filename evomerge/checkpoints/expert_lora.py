"""Low-rank changes of parameters that hold several experts (peft's `target_parameters`).

peft keeps one A and one B for all experts of a parameter, A as (experts * r, inputs), expert by
expert, and B as (outputs, r * experts), the experts the innermost. A file has the parameter whole,
its sizes in either order, or each expert by itself with gate and up apart. Which pair belongs to
which parameter of a module, and which of its sizes is A's, show in the shapes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.checkpoints.experts import ParameterPlace, ParameterPlaces
from evomerge.checkpoints.header import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["ExpertPair", "ExpertProduct", "apply_experts", "find_products"]


@dataclass(frozen=True, slots=True)
class ExpertPair:
    """One A and one B, of a parameter that is not named in the file.

    Attributes:
        module: Name of the module that has the parameter.
        alphas: Each parameter that it may be, and the alpha of its product.
        a: Name of the adapter's tensor of shape (experts * r, inputs).
        b: Name of the one of shape (outputs, r * experts).
        rank_stabilized: Whether alpha is divided by the root of r.
    """

    module: str
    alphas: Mapping[str, float]
    a: str
    b: str
    rank_stabilized: bool


@dataclass(frozen=True, slots=True)
class ExpertProduct:
    """What is added to one tensor of a file.

    Attributes:
        a: As in the pair.
        b: As in the pair.
        alpha: Its alpha.
        rank_stabilized: As in the pair.
        count: Number of experts.
        expert: The one whose tensor it is; None if the tensor holds all of them.
        start: Place of the tensor's first row among the rows of the parameter.
        turned: Whether the rows are A's inputs.
    """

    a: str
    b: str
    alpha: float
    rank_stabilized: bool
    count: int
    expert: int | None
    start: int
    turned: bool


def apply_experts(
    weight: "torch.Tensor", change: ExpertProduct, read: Callable[[str], "torch.Tensor"]
) -> None:
    """Add the product to a weight in place, rounded once.

    Args:
        weight: Shape (experts, rows, columns), or (rows, columns) of one expert.
        change: What to add.
        read: Reads one of the adapter's tensors.
    """
    a, b = read(change.a), read(change.b)
    a = a.view(change.count, -1, a.shape[1])
    b = b.view(b.shape[0], -1, change.count)
    rank = a.shape[1]
    scale = change.alpha / (rank**0.5 if change.rank_stabilized else rank)
    single = weight.ndim == 2
    for i in range(1 if single else change.count):
        expert = i if change.expert is None else change.expert
        part = weight if single else weight[i]
        left, right = b[..., expert].double(), a[expert].double()
        if change.turned:
            left, right = right.mT, left.mT
        left = left[change.start : change.start + part.shape[0]] * scale
        part.copy_(part.double().addmm_(left, right))


def find_products(
    pairs: Sequence[ExpertPair],
    stored: Mapping[str, TensorInfo],
    tensors: Mapping[str, TensorInfo],
) -> tuple[dict[str, ExpertProduct], list[str]]:
    """Find the tensors that expert pairs change.

    Args:
        pairs: The adapter's pairs.
        stored: The adapter's tensors.
        tensors: The model's tensors.

    Returns:
        What is added to each tensor, and a line for each pair that has no place or several.
    """
    found: dict[str, ExpertProduct] = {}
    lost = []
    homes = ParameterPlaces(tensors)
    fits = [(pair, list(_fitting(pair, stored, homes))) for pair in pairs]
    turned = {turn for _, choices in fits for _, _, turn in choices if turn is not None}
    for pair, choices in fits:
        taken = {
            name
            for other, theirs in fits
            if other is not pair and other.module == pair.module and len(theirs) == 1
            for name, _, _ in theirs
        }
        left = [choice for choice in choices if choice[0] not in taken or len(choices) == 1]
        if len(left) != 1 or (left[0][2] is None and len(turned) != 1):
            sizes = f"A {list(stored[pair.a].shape)} and B {list(stored[pair.b].shape)}"
            why = "leave open which way round they are added to one" if left else "fit none"
            lost.append(f"{pair.module}: {sizes} {why} of {', '.join(pair.alphas)}")
            continue
        parameter, home, turn = left[0]
        for name, (expert, start) in home.tensors.items():
            found[name] = ExpertProduct(
                pair.a,
                pair.b,
                pair.alphas[parameter],
                pair.rank_stabilized,
                home.count,
                expert,
                start,
                next(iter(turned)) if turn is None else turn,
            )
    return found, lost


def _fitting(
    pair: ExpertPair, stored: Mapping[str, TensorInfo], homes: ParameterPlaces
) -> Iterator[tuple[str, ParameterPlace, bool | None]]:
    """Yield the parameters whose sizes fit, and whether their rows are A's inputs if that shows."""
    (width, inputs), (outputs, other) = (stored[name].shape for name in (pair.a, pair.b))
    for parameter in pair.alphas:
        home = homes.find(pair.module, parameter)
        if home is None or width != other or width % home.count:
            continue
        straight = (home.rows, home.columns) == (outputs, inputs)
        flipped = (home.rows, home.columns) == (inputs, outputs)
        if straight or flipped:
            both = straight and flipped and home.count > 1
            yield parameter, home, None if both else not straight
