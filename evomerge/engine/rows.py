"""Embedding rows in another order: what merging sees of a model with another vocabulary."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["RowMap", "RowPlan", "row_shape", "with_rows"]

_CHUNK = 1024


@dataclass(frozen=True)
class RowPlan:
    """From which rows the rows of a rearranged tensor come; all tensors are int64.

    Attributes:
        size: Number of rows.
        taken: By source: rows of the result, and rows of the source that they are.
        averaged: Rows that are averages.
        shares: By source: places in `averaged`, and rows of the source that take part.
        filled: Rows that no token has: the average of all others.
    """

    size: int
    taken: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    averaged: torch.Tensor
    shares: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    filled: torch.Tensor

    def digest(self) -> str:
        """Return a hash of the plan."""
        found = hashlib.sha256(str(self.size).encode())
        for pairs in (self.taken, self.shares):
            for source, (at, rows) in pairs.items():
                found.update(f"\0{source}\0{len(at)}\0".encode())
                found.update(at.numpy().data)
                found.update(rows.numpy().data)
            found.update(b"\1")
        for rows in (self.averaged, self.filled):
            found.update(f"\0{len(rows)}\0".encode())
            found.update(rows.numpy().data)
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class RowMap:
    """One input of an embedding or head, rearranged. Equal maps give equal tensors.

    Attributes:
        plan: Which rows.
        sources: Model and tensor names of its sources.
        key: A hash of both.
    """

    plan: RowPlan
    sources: tuple[tuple[str, str], ...]
    key: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowMap) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def used(self) -> tuple[tuple[str, str], ...]:
        """Return the sources from which rows come."""
        return tuple(self.sources[i] for i in self._used())

    def _used(self) -> list[int]:
        return sorted({*self.plan.taken, *self.plan.shares}) or [0]

    def gather(self, read: Callable[[str, str], torch.Tensor]) -> torch.Tensor:
        """Build the tensor.

        Rows are copied; averages are computed in float32 and rounded once. The type is that of
        the sources, the wider one where they differ. Every operation is elementwise, so that the
        result depends on no number of threads.

        Args:
            read: Returns a tensor of a model, shape (rows, …) or (1, rows).
        """
        plan = self.plan
        stored = {i: read(*self.sources[i]) for i in self._used()}
        lies = _lies(next(iter(stored.values())).shape)
        tensors = {i: tensor.mT if lies else tensor for i, tensor in stored.items()}
        first = next(iter(tensors.values()))
        dtype = first.dtype
        for tensor in tensors.values():
            dtype = _wider(dtype, tensor.dtype)
        device = first.device
        out = torch.zeros((plan.size, *first.shape[1:]), dtype=dtype, device=device)
        for i, (at, rows) in plan.taken.items():
            out[at.to(device)] = tensors[i][rows.to(device)].to(dtype)
        if len(plan.averaged):
            total = torch.zeros((len(plan.averaged), *first.shape[1:]), device=device)
            counts = torch.zeros(len(plan.averaged), device=device)
            for i, (places, rows) in plan.shares.items():
                total[places.to(device)] += tensors[i][rows.to(device)].float()
                counts[places.to(device)] += 1
            total /= counts.view(-1, *[1] * (total.ndim - 1))
            out[plan.averaged.to(device)] = total.to(dtype)
        if len(plan.filled):
            real = torch.ones(plan.size, dtype=torch.bool)
            real[plan.filled] = False
            out[plan.filled.to(device)] = _mean(out, real.nonzero().view(-1)).to(dtype)
        return out.view(1, -1) if lies else out


def row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes of one row of a tensor with a row for each token."""
    return shape[:1] if _lies(shape) else shape[1:]


def with_rows(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the sizes of such a tensor with another number of rows."""
    return (1, count) if _lies(shape) else (count, *shape[1:])


def _lies(shape: tuple[int, ...]) -> bool:
    """Tell whether rows of one number lie side by side (Bart's `final_logits_bias`)."""
    return len(shape) == 2 and shape[0] == 1


def _wider(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    if a == b:
        return a
    if torch.float64 in (a, b):
        return torch.float64
    return torch.float32


def _mean(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the average of some rows, by sums of pairs in float64."""
    sums = []
    for start in range(0, len(rows), _CHUNK):
        chosen = rows[start : start + _CHUNK].to(tensor.device)
        sums.append(_halve(tensor[chosen].double()))
    return (_halve(torch.stack(sums)) / len(rows)).float()


def _halve(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over the first dimension, made of elementwise additions only."""
    while len(values) > 1:
        half = len(values) // 2
        odd = values[2 * half :]
        values = torch.cat([values[:half] + values[half : 2 * half], odd])
    return values[0]
