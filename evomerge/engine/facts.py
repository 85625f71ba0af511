"""Static facts about source tensors, each computed once and kept.

A fact has the same bits on every path of one device kind: sums that native loops compute too are
exact in the sense of `evomerge.methods.exact`, and the others are taken over fixed stretches.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from evomerge.engine.divergence import row_divergence
from evomerge.engine.magnitudes import BracketedMagnitudes, SortedMagnitudes, row_ranks
from evomerge.engine.native import Native, divergence, magnitudes, ranks, sums
from evomerge.engine.products import inner_products
from evomerge.engine.scan import FieldScan
from evomerge.engine.workspace import BLOCK, Workspace
from evomerge.methods.draws import LEVEL_SHIFT, LEVELS, Draws, bound_level
from evomerge.methods.exact import anchors, exact_sum, split_sums
from evomerge.methods.fields import Sparse, TaskVector
from evomerge.methods.interface import Field, Groups, Threshold
from evomerge.methods.sparsifiers import Drop

__all__ = ["FactStore", "NotFiniteError", "TensorFacts"]

SMALL = 1 << 16
"""Up to this many elements a tensor's random numbers are kept."""

_LARGE = 2.0**120
_DEVICE_SPAN = 1 << 22
_CACHED_SPAN = 1 << 15  # so many float64 numbers, and what is made of them, fit a cache


class NotFiniteError(Exception):
    """A fact was asked for that an input has not, as it is not finite.

    Attributes:
        i: The input.
    """

    def __init__(self, i: int) -> None:
        super().__init__(f"input {i} has values that are not finite")
        self.i = i


class FactStore:
    """A cache of facts by key.

    Attributes:
        keep: Whether facts outlive their tensor; a streaming merge needs each one once.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self._facts: dict[Hashable, Any] = {}

    def find(self, key: Hashable) -> Any:
        """Return the fact, or None if it is not there."""
        return self._facts.get(key)

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

    Implements `evomerge.methods.interface.Facts`. Thresholds and ranks are taken of inputs that are
    not finite, too, and mean nothing then; other facts raise `NotFiniteError`.
    """

    def __init__(
        self,
        store: FactStore,
        tensors: Sequence[torch.Tensor],
        keys: Sequence[Hashable],
        *,
        workspace: Workspace,
        draw: Callable[[int], int],
        shape: tuple[int, ...],
    ) -> None:
        """Describe the inputs.

        Args:
            store: Where facts are kept.
            tensors: The inputs, flat.
            keys: What identifies each input's content.
            workspace: Scratch memory on the inputs' device.
            draw: Gives the key of the random numbers of an input.
            shape: Sizes of the tensor.
        """
        self._store = store
        self._tensors = tensors
        self._keys = keys
        self._workspace = workspace
        self._draw = draw
        self._shape = shape
        self._extremes: dict[int, float] = {}

    @property
    def _native(self) -> Native | None:
        return self._workspace.native

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the tensor."""
        return self._shape

    @property
    def numel(self) -> int:
        """Number of elements of the tensor."""
        return self._tensors[0].numel()

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor where the inputs are."""
        return tensor.to(self._workspace.device)

    def finite(self, i: int) -> bool:
        """Return whether input i has numbers only, neither NaN nor infinite."""
        return math.isfinite(self.extreme(i))

    def _require(self, inputs: Iterable[int]) -> None:
        for i in inputs:
            if not self.finite(i):
                raise NotFiniteError(i)

    def gram(self, inputs: Sequence[int], *, deltas: bool = False) -> list[list[float]]:
        """Return the inner products of inputs, or of their task vectors."""
        key = ("gram", deltas, *(self._keys[i] for i in ((0, *inputs) if deltas else inputs)))
        found: list[list[float]] = self._store.get(key, lambda: self._gram(inputs, deltas=deltas))
        return found

    def dots(self, i: int, j: int, groups: Groups, *, deltas: bool = False) -> torch.Tensor:
        """Return the inner products of each group."""
        i, j = min(i, j), max(i, j)
        key = ("dots", groups, self._keys[i], self._keys[j], self._keys[0] if deltas else None)
        found: torch.Tensor = self._store.get(
            key, lambda: self._dots(i, j, groups, deltas=deltas).cpu()
        )
        return found

    def threshold(self, field: Field, kept: int) -> Threshold:
        """Return what separates the `kept` largest magnitudes of a field."""
        kind = SortedMagnitudes if self._store.keep else BracketedMagnitudes
        look: SortedMagnitudes | BracketedMagnitudes = self._store.get(
            ("magnitudes", *self._identity(field)),
            lambda: kind(FieldScan(field, self._tensors, self._workspace), self.numel),
        )
        return look.threshold(kept)

    def ordered(self, field: Field, places: Sequence[int]) -> list[float]:
        """Return the magnitudes of a field that have so many others before them in order."""

        def find() -> list[float]:
            scan = FieldScan(field, self._tensors, self._workspace)
            look = BracketedMagnitudes(scan, self.numel)
            return [look.threshold(self.numel - place).magnitude for place in places]

        key = ("ordered", tuple(places), *self._identity(field))
        found: list[float] = self._store.get(key, find)
        return found

    def total(self, field: Field) -> float:
        """Return the sum of a field's magnitudes."""
        return self.totals([field])[0]

    def totals(self, fields: Sequence[Field]) -> list[float]:
        """Return the sums of the magnitudes of several fields; what is not known, in one pass."""
        found: list[float | None] = [self._known_total(field) for field in fields]
        missing = [field for field, total in zip(fields, found, strict=True) if total is None]
        totals = iter(self._totals(missing) if missing else ())
        results = [next(totals) if total is None else total for total in found]
        for field, total in zip(fields, results, strict=True):
            if field.identity() is not None:
                self._store.get(("total", *self._identity(field)), functools.partial(float, total))
        return results

    def _known_total(self, field: Field) -> float | None:
        if not self._store.keep:
            return None
        if isinstance(field, Sparse) and isinstance(field.sparsify, Drop):
            return self._kept(field.i, field.sparsify)
        if field.identity() is None:
            return None
        total: float | None = self._store.find(("total", *self._identity(field)))
        return total

    def _kept(self, i: int, drop: Drop) -> float | None:
        """Return the L1 norm of what a drop at one of the levels keeps of task vector i."""
        level = bound_level(drop.bound)
        if level is None:
            return None
        key = ("kept", drop.draws.key, *self._identity(TaskVector(i)))
        coarse, fine = self._store.get(key, lambda: self._levels(i, drop.draws))
        return float(coarse[level - 1] + fine[level - 1])

    def _levels(self, i: int, draws: Draws) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return for each level the two exact sums of what it keeps."""
        field = TaskVector(i)
        self._require(field.inputs)
        bound = self.extreme(0) + self.extreme(i)
        dtype = torch.float32 if bound < _LARGE else torch.float64
        if self._native is not None and dtype == torch.float32:
            found = sums.levels(self._native, i, draws, self._tensors, bound)
            if found is not None:
                return found[0].cumsum(), found[1].cumsum()
        first, second = anchors(bound, dtype)

        # One table for each thread; exact in any order, as all numbers lie on the grids.
        tables: dict[int, np.ndarray[Any, Any]] = {}

        def add(space: Workspace) -> None:
            values = field(space).abs_().to(dtype)
            numbers = draws.block(space.start, space.iota(), space.integers(0), space.integers(1))
            levels = (numbers.cpu().numpy() >> LEVEL_SHIFT) + LEVELS // 2
            coarse = (values + first) - first
            fine = ((values - coarse) + second) - second
            table = tables.setdefault(id(space), np.zeros((2, LEVELS)))
            for place, part in enumerate((coarse, fine)):
                table[place] += np.bincount(levels, part.cpu().numpy(), LEVELS)

        self._workspace.each(self._tensors, add)
        both = np.sum([np.zeros((2, LEVELS)), *tables.values()], axis=0).cumsum(axis=1)
        return both[0], both[1]

    def ranks(self, i: int) -> torch.Tensor:
        """Return each element's place in its row by magnitude of task vector i."""
        field = TaskVector(i)
        found: torch.Tensor = self._store.get(
            ("ranks", *self._identity(field)), lambda: self._ranks(field)
        )
        return found

    def divergence(self, i: int, j: int) -> torch.Tensor:
        """Return the divergence between the softmax distributions of each row."""
        key = ("divergence", self._keys[i], self._keys[j])
        found: torch.Tensor = self._store.get(key, lambda: self._divergence(i, j))
        return found

    def draws(self, i: int) -> Draws:
        """Return the random numbers of input i; those of a small tensor are kept."""
        key = self._draw(i)
        if not self._store.keep or self.numel > SMALL:
            return Draws(key)
        found: Draws = self._store.get(("draws", key, self.numel), lambda: self._known(key))
        return found

    def _known(self, key: int) -> Draws:
        numel, device = self.numel, self._workspace.device
        iota = torch.arange(numel, dtype=torch.int32, device=device)
        out, scratch = torch.empty_like(iota), torch.empty_like(iota)
        return Draws(key, Draws(key).block(0, iota, out, scratch))

    def extreme(self, i: int) -> float:
        """Return the largest magnitude of input i; NaN or infinite if the input is not finite."""
        if i not in self._extremes:
            found = self._store.get(("extreme", self._keys[i]), lambda: self._extreme(i))
            self._extremes[i] = float(found)
        return self._extremes[i]

    def _extreme(self, i: int) -> float:
        tensor = self._tensors[i]
        largest = magnitudes.largest(self._native, tensor) if self._native is not None else None
        if largest is not None:
            return largest
        if tensor.element_size() == 1:
            tensor = tensor.float()  # no arithmetic on float8
        if not tensor.numel():
            return 0.0
        low, high = torch.stack(tensor.aminmax()).tolist()
        return max(abs(low), abs(high)) if low <= high else math.nan

    def _identity(self, field: Field) -> tuple[Hashable, ...]:
        return (field.identity(), *(self._keys[i] for i in field.inputs))

    def _double(self, i: int, start: int, stop: int, *, delta: bool) -> torch.Tensor:
        part = self._tensors[i][start:stop]
        if delta:
            # As the kernels see it: the difference is rounded to float32.
            part = part.float() - self._tensors[0][start:stop].float()
        return part.double()

    def _gram(self, inputs: Sequence[int], *, deltas: bool) -> list[list[float]]:
        count = len(inputs)
        pairs = [(i, j) for i in range(count) for j in range(i, count)]
        wanted = [(inputs[i], inputs[j]) for i, j in pairs]
        sums = inner_products(wanted, self._tensors, self._fixed, deltas=deltas)
        if not all(map(math.isfinite, sums)):
            self._require((0, *inputs) if deltas else inputs)
        products = dict(zip(pairs, sums, strict=True))
        return [[products[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]

    @property
    def _fixed(self) -> Workspace:
        """A workspace whose blocks have the length that sums are cut into."""
        space = self._workspace
        length = BLOCK if space.device.type == "cpu" else _DEVICE_SPAN
        return space if space.block == length else Workspace(space.device, length)

    def _dots(self, i: int, j: int, groups: Groups, *, deltas: bool) -> torch.Tensor:
        self._require((i, j, 0) if deltas else (i, j))
        size, device = groups.size, self._workspace.device
        lines = self.numel // size
        if groups.kind == "rows":
            result = torch.empty(lines, dtype=torch.float64, device=device)
        else:
            result = torch.zeros(size, dtype=torch.float64, device=device)
        step = max(1, BLOCK // size)
        for line in range(0, lines, step):
            start, stop = line * size, min(line + step, lines) * size
            a = self._double(i, start, stop, delta=deltas)
            b = a if i == j else self._double(j, start, stop, delta=deltas)
            products = (a * b).view(-1, size)
            if groups.kind == "rows":
                result[line : line + step] = products.sum(1)
            else:
                result += products.sum(0)
        return result

    def _totals(self, fields: Sequence[Field]) -> list[float]:
        self._require(range(len(self._tensors)))
        extremes = [self.extreme(i) for i in range(len(self._tensors))]
        bound = max(field.bound(extremes) for field in fields)
        dtype = torch.float32 if bound < _LARGE else torch.float64
        if self._native is not None and dtype == torch.float32:
            found = sums.totals(self._native, fields, self._tensors, bound)
            if found is not None:
                return found
        first, second = anchors(bound, dtype)

        def add(space: Workspace) -> list[tuple[float, float]]:
            sums = []
            for field in fields:
                coarse, fine = split_sums(field(space).abs_().to(dtype), first, second)
                sums.append((float(coarse), float(fine)))
            return sums

        parts = self._workspace.each(self._tensors, add)
        return [exact_sum([part[place] for part in parts]) for place in range(len(fields))]

    def _ranks(self, field: TaskVector) -> torch.Tensor:
        row = max(self._shape[-1] if self._shape else 1, 1)
        if self._native is not None:
            found = ranks.of_task_vector(self._native, field.i, self._tensors, row)
            if found is not None:
                return found
        values = torch.empty(self.numel, dtype=torch.float32, device=self._workspace.device)

        def fill(space: Workspace) -> None:
            block = field(space)
            values[space.start : space.start + block.numel()] = block

        self._workspace.each(self._tensors, fill)
        return row_ranks(values.abs_(), row)

    def _divergence(self, i: int, j: int) -> torch.Tensor:
        self._require((i, j))
        row = max(self._shape[-1] if self._shape else 1, 1)
        if self._native is not None:
            found = divergence.of_rows(self._native, i, j, self._tensors, row)
            if found is not None:
                return found
        x, y = (self._tensors[k].reshape(-1, row) for k in (i, j))
        span = _CACHED_SPAN if self._workspace.device.type == "cpu" else _DEVICE_SPAN
        step = max(1, span // row)
        starts = range(0, max(len(x), 1), step)
        return torch.cat([row_divergence(x[k : k + step], y[k : k + step]) for k in starts])
