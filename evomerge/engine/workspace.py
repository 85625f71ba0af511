"""Scratch memory for merging a tensor block by block.

Fresh buffers cost far more than the arithmetic on them, so one set, small enough for a cache, is
used again for every block. On a CPU the blocks of a large tensor are divided among threads, each
with a set of its own; torch's own threads would meet after every operation on every block.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from evomerge.engine.native import Native

__all__ = ["BLOCK", "Workspace"]

BLOCK = 1 << 18
"""Elements in a block, a power of two."""

Result = TypeVar("Result")


class Workspace:
    """Buffers of one device, and the block that is being merged.

    Implements `evomerge.methods.interface.Block`.
    """

    def __init__(
        self,
        device: torch.device,
        block: int = BLOCK,
        native: Native | None = None,
    ) -> None:
        """Make an empty workspace.

        Args:
            device: Where the tensors are.
            block: Elements in a block.
            native: What goes over whole tensors in one pass, where it can.

        Raises:
            ValueError: if `block` is not a power of two.
        """
        if block < 1 or block & (block - 1):
            raise ValueError(f"a block has a power of two elements, got {block}")
        self.device = device
        self.block = block
        self.native = native
        self.start = 0
        self._numel = 0
        self._inputs: Sequence[torch.Tensor] = ()
        self._buffers: dict[object, torch.Tensor] = {}
        self._views: dict[object, torch.Tensor] = {}
        self._team: list[Workspace] = [self]

    def each(
        self,
        inputs: Sequence[torch.Tensor],
        work: Callable[["Workspace"], Result],
        first: int = 0,
    ) -> list[Result]:
        """Do something in every block of flat inputs.

        Args:
            inputs: The tensors.
            work: Is given a workspace that has entered a block.
            first: Element at which the first block starts.

        Returns:
            What `work` returned, in the order of the blocks.
        """
        numel = inputs[0].numel()
        starts = range(first, numel, self.block)

        def run(space: Workspace, part: range) -> list[Result]:
            results = []
            for start in part:
                space.enter(inputs, start, min(start + self.block, numel))
                results.append(work(space))
            space.leave()
            return results

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        if threads == 1 or len(starts) < 2:
            return run(self, starts)
        with _single_threaded():
            if len(starts) < 2 * threads:
                return run(self, starts)
            while len(self._team) < threads:
                self._team.append(Workspace(self.device, self.block))
            share = -(-len(starts) // threads)
            parts = [starts[i * share : (i + 1) * share] for i in range(threads)]
            with ThreadPoolExecutor(threads, initializer=_use_one_thread) as pool:
                done = list(pool.map(run, self._team[:threads], parts))
        return [result for part in done for result in part]

    def once(
        self,
        inputs: Sequence[torch.Tensor],
        start: int,
        work: Callable[["Workspace"], Result],
        length: int | None = None,
    ) -> Result:
        """Do something in one block.

        Args:
            inputs: The tensors.
            start: Its first element.
            work: Is given this workspace.
            length: Its number of elements at most; a block's if not given.
        """
        stop = min(start + (length or self.block), inputs[0].numel())
        with _single_threaded():
            self.enter(inputs, start, stop)
            result = work(self)
        self.leave()
        return result

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self._inputs)

    def enter(self, inputs: Sequence[torch.Tensor], start: int, stop: int) -> None:
        """Move to the elements from `start` to `stop` of flat inputs."""
        whole = start == 0 and stop == inputs[0].numel()
        self._inputs = inputs if whole else [tensor[start:stop] for tensor in inputs]
        self.start = start
        if stop - start != self._numel:
            self._numel = stop - start
            self._views.clear()

    def leave(self) -> None:
        """Forget the inputs, so that they can be freed."""
        self._inputs = ()

    def load(self, i: int) -> torch.Tensor:
        """Return input i as float32; one i > 0 at a time."""
        source = self._inputs[i]
        if source.dtype == torch.float32:
            return source
        return self._view("base" if i == 0 else "other", torch.float32).copy_(source)

    def scratch(self, slot: int) -> torch.Tensor:
        """Return float32 scratch."""
        return self._view(slot, torch.float32)

    def integers(self, slot: int) -> torch.Tensor:
        """Return int32 scratch."""
        return self._view(("integers", slot), torch.int32)

    def iota(self) -> torch.Tensor:
        """Return 0, 1, 2, … as int32."""
        if "iota" not in self._buffers:
            iota = torch.arange(self.block, dtype=torch.int32, device=self.device)
            self._buffers["iota"] = iota
        return self._view("iota", torch.int32)

    def result(self) -> torch.Tensor:
        """Return the float32 memory that a kernel fills."""
        return self._view("result", torch.float32)

    def rounded(self, dtype: torch.dtype) -> torch.Tensor:
        """Return memory of the output's type."""
        return self._view(dtype, dtype)

    def _view(self, key: object, dtype: torch.dtype) -> torch.Tensor:
        view = self._views.get(key)
        if view is None:
            buffer = self._buffers.get(key)
            if buffer is None:
                buffer = torch.empty(self.block, dtype=dtype, device=self.device)
                self._buffers[key] = buffer
            view = self._views[key] = buffer[: self._numel]
        return view


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _use_one_thread() -> None:
    # The setting belongs to a thread as soon as that has used it.
    torch.set_num_threads(1)
