"""Formulas compiled to one pass over the data, kept on disk.

A compiled formula reads each source once and writes the result once. Compiling takes seconds, so it
is done for large models only, once for each form of a formula; numbers are arguments. Without a
compiler the blocked kernels do the same work and give the same bits.
"""

import hashlib
import logging
import os
import platform
import secrets
import shutil
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import PrerequisiteError
from evomerge.methods.exact import anchors, exact_sum
from evomerge.methods.formulas import Formula, fields_formula, formula, sums
from evomerge.methods.interface import Field, Kernel

__all__ = ["SMALLEST", "CompiledFormulas", "cache_folder", "compiled_formulas"]

SMALLEST = 1 << 14
"""Tensors with fewer elements are left to the blocked kernels."""

_LARGEST = 2**31 - 1
_VERSION = 4  # of what this module makes from a formula
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_log = logging.getLogger(__name__)

_RESIDENT = 50_000_000
_STREAMED = 2_000_000_000
_CHOICES = ("auto", "never", "always")

Runner = Callable[[list[Any]], list[torch.Tensor]]


def cache_folder() -> Path:
    """Return where compiled formulas are kept: `EVOMERGE_CACHE`, or `evomerge` in the cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EVOMERGE_CACHE") or Path(base) / "evomerge") / "kernels"


def compiled_formulas(
    device: torch.device, elements: int, *, resident: bool
) -> "CompiledFormulas | None":
    """Return the compiled formulas for a merge, or None where they would not pay.

    `EVOMERGE_COMPILE` is `auto` (the default), `never` or `always`.

    Args:
        device: Where it happens.
        elements: Number of elements of the merged model.
        resident: Whether many candidates will follow; one merge alone compiles for a very large
            model only, and else uses what is there.

    Raises:
        PrerequisiteError: if the variable has another value.
    """
    choice = os.environ.get("EVOMERGE_COMPILE", "auto")
    if choice not in _CHOICES:
        raise PrerequisiteError(f"EVOMERGE_COMPILE={choice!r}: want {', '.join(_CHOICES)}")
    pays = elements >= (_RESIDENT if resident else _STREAMED)
    # A compiler for a GPU may join a multiplication and an addition to one rounding: other bits
    # than those of an export on a CPU. So there it is used only where somebody asks for it.
    wanted = elements >= _RESIDENT and device.type == "cpu"
    if choice == "never" or (choice == "auto" and not wanted):
        return None
    return CompiledFormulas(device, build=pays or choice == "always")


class CompiledFormulas:
    """The compiled formulas of one process and device.

    Attributes:
        build: Whether to compile what is not on disk yet.
    """

    def __init__(self, device: torch.device, *, build: bool, folder: Path | None = None) -> None:
        """Use the formulas in a folder.

        Args:
            device: Where tensors are.
            build: Whether to compile what is not there yet; without a C++ compiler nothing is.
            folder: Where they are kept; `cache_folder()` if not given.
        """
        self.build = build and (device.type != "cpu" or _has_compiler())
        self._device = device
        self._folder = folder or cache_folder()
        self._runners: dict[Hashable, Runner | None] = {}
        self._machine = _machine(device)

    def merge(
        self, kernel: Kernel, inputs: Sequence[torch.Tensor], dtype: torch.dtype, out: torch.Tensor
    ) -> torch.Tensor | None:
        """Merge a whole tensor.

        Args:
            kernel: What to do.
            inputs: The flat sources.
            dtype: Type to which the result is rounded.
            out: Where it goes, flat.

        Returns:
            0, or NaN if a number is not finite or too large for the type; None if nothing was done.
        """
        if not _suits([*inputs, out]):
            return None
        found = formula(kernel)
        if found is None or not found.inputs:
            return None
        used = [inputs[i] for i in found.inputs]
        key = ("merge", found.key, dtype, out.dtype, *(x.dtype for x in (*used, *found.tensors)))
        runner = self._find(key, lambda: _Merge(found, dtype), [used, [out]], found)
        if runner is None:
            return None
        checks = []
        for start, stop, *numbers in found.parts(out.numel()):
            data = (tensor[start:stop] for tensor in (*used, *found.tensors))
            moved = (number.to(self._device) for number in numbers)
            checks.append(runner([*data, *moved, out[start:stop]])[0])
        return torch.stack(checks).sum()

    def totals(
        self, fields: Sequence[Field], inputs: Sequence[torch.Tensor], bound: float
    ) -> list[float] | None:
        """Return the sums of the magnitudes of fields, or None if nothing was done.

        Args:
            fields: What to add up.
            inputs: The flat sources.
            bound: No element is larger.
        """
        found = fields_formula(fields) if _suits(inputs) else None
        if found is None:
            return None
        used = [inputs[i] for i in found.inputs]
        key = ("total", found.key, *(x.dtype for x in (*used, *found.tensors)))
        grids = torch.tensor(anchors(bound, torch.float32), dtype=torch.float32)
        floats = torch.cat([found.floats, grids])
        runner = self._find(key, lambda: _Total(found), [used, []], found, floats)
        if runner is None:
            return None
        parts: list[list[float]] = []
        for start, stop, numbers, integers in found.parts(used[0].numel()):
            data = (tensor[start:stop] for tensor in (*used, *found.tensors))
            moved = (torch.cat([numbers, grids]).to(self._device), integers.to(self._device))
            parts.append(runner([*data, *moved])[0].tolist())
        return [
            exact_sum([(part[2 * place], part[2 * place + 1]) for part in parts])
            for place in range(len(fields))
        ]

    def _find(
        self,
        key: Hashable,
        module: Callable[[], torch.nn.Module],
        tensors: list[list[torch.Tensor]],
        found: Formula,
        floats: torch.Tensor | None = None,
    ) -> Runner | None:
        if key in self._runners:
            return self._runners[key]
        text = repr((_VERSION, _sources(), self._machine, key))
        file = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt2"
        runner: Runner | None = None
        try:
            if not file.is_file() and self.build:
                used, goal = tensors
                numbers = (found.floats if floats is None else floats, found.integers)
                _compile(module(), [*used, *found.tensors], numbers, goal, file)
            if file.is_file():
                runner = _load(file)
        except Exception as error:  # noqa: BLE001 - whatever a compiler does, there is another way
            _log.warning("a merge kernel could not be compiled, the slower way is taken: %s", error)
            self.build = False
        self._runners[key] = runner
        return runner


class _Merge(torch.nn.Module):
    """A formula, rounded into the goal; returns 0, or NaN if the type cannot hold a number."""

    def __init__(self, found: Formula, dtype: torch.dtype) -> None:
        super().__init__()
        self._found = found
        self._dtype = dtype
        # What the type cannot hold overflows float32 when multiplied by this.
        self._stretch = torch.finfo(torch.float32).max / torch.finfo(dtype).max

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        *rest, out = arguments
        result = _apply(self._found, rest)
        out.copy_(result.to(self._dtype))
        wide = result if self._stretch == 1.0 else result * self._stretch
        return (wide - wide).sum()


class _Total(torch.nn.Module):
    """The exact sums of the magnitudes of fields."""

    def __init__(self, found: Formula) -> None:
        super().__init__()
        self._found = found

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        return sums(_apply(self._found, list(arguments)), arguments[-2])


def _apply(found: Formula, arguments: list[torch.Tensor]) -> torch.Tensor:
    count = len(found.inputs)
    *tensors, floats, integers = arguments
    xs = [x.float() for x in tensors[:count]]
    return found.function(xs, tensors[count:], floats, integers)


def _compile(
    module: torch.nn.Module,
    tensors: list[torch.Tensor],
    numbers: tuple[torch.Tensor, torch.Tensor],
    goal: list[torch.Tensor],
    file: Path,
) -> None:
    """Compile for any number of elements."""
    import torch._inductor

    def example(like: torch.Tensor) -> torch.Tensor:
        return torch.zeros(SMALLEST, dtype=like.dtype, device=like.device)

    device = tensors[0].device
    _log.info("compiling a merge kernel; it is kept in %s", file.parent)
    length = torch.export.Dim("length", min=2, max=_LARGEST)
    data = [example(tensor) for tensor in tensors]
    goals = [example(tensor) for tensor in goal]
    arguments = (*data, *(n.to(device) for n in numbers), *goals)
    free, fixed = {0: length}, None
    shapes = (*(free for _ in data), fixed, fixed, *(free for _ in goals))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.stem}-{secrets.token_hex(4)}.pt2")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, arguments, dynamic_shapes=(shapes,))
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - documented under this name
            program,
            package_path=str(beside),
            inductor_configs={"cpp.dynamic_threads": True},
        )
    beside.replace(file)


def _load(file: Path) -> Runner:
    # The class behind torch._inductor.aoti_load_package, whose import takes seconds.
    loader = torch._C._aoti.AOTIModelPackageLoader(  # noqa: SLF001
        str(file), "model", False, 1, -1
    )
    runner: Runner = loader.boxed_run
    return runner


def _suits(tensors: Sequence[torch.Tensor]) -> bool:
    numel = tensors[0].numel()
    return SMALLEST <= numel <= _LARGEST and all(
        x.dtype in _TYPES and x.is_contiguous() for x in tensors
    )


def _has_compiler() -> bool:
    wanted = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((wanted,) if wanted else ("g++", "clang++", "c++")))


def _machine(device: torch.device) -> tuple[str, ...]:
    """Return what a compiled formula depends on beside its form."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.backends.cpu.get_cpu_capability()
        information = Path("/proc/cpuinfo")
        if information.is_file():
            lines = information.read_text(encoding="utf-8").splitlines()
            name += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return torch.__version__, platform.machine(), device.type, name


def _sources() -> str:
    """Return the text of the modules that formulas are made of: another text, another kernel."""
    from evomerge.methods import draws, exact, formulas

    files = (Path(str(module.__file__)) for module in (draws, exact, formulas))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
