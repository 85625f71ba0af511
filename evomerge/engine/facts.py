"""Static facts about source tensors, each computed once and kept.

Sums are taken over fixed stretches of the flat tensors, whatever the size of a block or the number
of threads, and added exactly, so that a fact has the same bits on every path of one device kind.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch

from evomerge.engine.magnitudes import SMALL, BinnedMagnitudes, SortedMagnitudes
from evomerge.engine.workspace import BLOCK, Workspace
from evomerge.methods.draws import Draws, drop
from evomerge.methods.interface import Threshold

__all__ = ["FactStore", "TensorFacts"]

_ROW = 4096


class FactStore:
    """A cache of facts by key.

    Attributes:
        keep: Whether facts outlive their tensor; a streaming merge needs each one once.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._facts: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the fact, made if it is not there yet."""
        if not self.keep:
            return make()
        try:
            return self._facts[key]
        except KeyError:
            fact = self._facts[key] = make()
            return fact


class TensorFacts:
    """The facts about the inputs of one merged tensor.

    Implements `evomerge.methods.interface.Facts`.
    """

    def __init__(
        self,
        store: FactStore,
        tensors: Sequence[torch.Tensor],
        keys: Sequence[Hashable],
        workspace: Workspace,
        draw: Callable[[int], int],
    ) -> None:
        """Describe the inputs.

        Args:
            store: Where facts are kept.
            tensors: The inputs, flat.
            keys: What identifies each input's content.
            workspace: Scratch memory on the inputs' device.
            draw: Gives the key of the random numbers of an input.
        """
        self._store = store
        self._tensors = tensors
        self._keys = keys
        self._workspace = workspace
        self._draw = draw

    @property
    def numel(self) -> int:
        """Number of elements of the tensor."""
        return self._tensors[0].numel()

    def finite(self, i: int) -> bool:
        """Return whether input i has numbers only, neither NaN nor infinite."""
        return bool(self._store.get(("finite", self._keys[i]), lambda: self._finite(i)))

    def dot(self, i: int, j: int) -> float:
        """Return the inner product of inputs i and j."""
        key = ("dot", self._keys[i], self._keys[j])
        return float(self._store.get(key, lambda: self._dot(i, j)))

    def threshold(self, i: int, kept: int) -> Threshold:
        """Return what separates the `kept` largest magnitudes of task vector i."""
        kind = SortedMagnitudes if self.numel <= SMALL else BinnedMagnitudes
        base, source, space = self._tensors[0], self._tensors[i], self._workspace
        magnitudes = self._store.get(
            ("magnitudes", self._keys[0], self._keys[i]),
            lambda: kind(lambda: _deltas(base, source, space)),
        )
        found: Threshold = magnitudes.threshold(kept)
        return found

    def draws(self, i: int) -> Draws:
        """Return the random numbers of input i; those of a small tensor are kept."""
        key = self._draw(i)
        if not self._store.keep or self.numel > SMALL:
            return Draws(key)
        found: Draws = self._store.get(("draws", key), lambda: self._known(key))
        return found

    def _known(self, key: int) -> Draws:
        numel, device = self.numel, self._workspace.device
        iota = torch.arange(numel, dtype=torch.int32, device=device)
        out, scratch = torch.empty_like(iota), torch.empty_like(iota)
        return Draws(key, Draws(key).block(0, iota, out, scratch))

    def l1(self, i: int) -> float:
        """Return the L1 norm of task vector i."""
        key = ("l1", self._keys[0], self._keys[i])
        return float(self._store.get(key, lambda: self._l1(i, None)))

    def kept_l1(self, i: int, density: float) -> float:
        """Return the L1 norm of what random dropping keeps of task vector i."""
        return self._l1(i, density)

    def _finite(self, i: int) -> bool:
        tensor = self._tensors[i]
        if tensor.element_size() == 1:
            tensor = tensor.float()  # no arithmetic on float8
        return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())

    def _dot(self, i: int, j: int) -> float:
        sums: list[float] = []
        for start in range(0, self.numel, BLOCK):
            a = self._tensors[i][start : start + BLOCK].double()
            b = a if i == j else self._tensors[j][start : start + BLOCK].double()
            sums.extend(_row_sums(a * b))
        return _total(sums)

    def _l1(self, i: int, density: float | None) -> float:
        space = self._workspace
        # Whole rows in every block, so that the sums do not depend on the size of a block.
        if space.block % _ROW:
            space = Workspace(space.device, _ROW)
        draws = None if density is None else self.draws(i)
        sums: list[float] = []
        for start, delta in _deltas(self._tensors[0], self._tensors[i], space):
            if draws is not None and density is not None:
                scratch = space.integers(1)
                numbers = draws.block(start, space.iota(), space.integers(0), scratch)
                drop(delta, density, numbers, scratch)
            sums.extend(_row_sums(delta.abs_()))
        return _total(sums)


def _deltas(
    base: torch.Tensor, source: torch.Tensor, space: Workspace
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the blocks of a task vector, in the workspace's third scratch."""
    for start in range(0, base.numel(), space.block):
        space.enter((base, source), start, min(start + space.block, base.numel()))
        yield start, torch.sub(space.load(1), space.load(0), out=space.scratch(2))
    space.leave()


def _row_sums(values: torch.Tensor) -> list[float]:
    """Sum rows of fixed length, each by one thread; in float64 where float32 overflows."""
    rows = values.numel() // _ROW
    whole, rest = values[: rows * _ROW].view(rows, _ROW), values[rows * _ROW :]
    for dtype in (None, torch.float64):
        sums: list[float] = whole.sum(dim=1, dtype=dtype).tolist() if rows else []
        if rest.numel():
            sums.append(float(rest.sum(dtype=dtype)))
        if all(map(math.isfinite, sums)):
            break
    return sums


def _total(sums: list[float]) -> float:
    """Add exactly; NaN if a part is not finite."""
    if not all(map(math.isfinite, sums)):
        return math.nan
    return math.fsum(sums)
