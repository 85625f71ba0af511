"""From the text of a loop to machine code, kept on disk.

numba compiles a loop for the machine at hand, in about a second and with nothing installed beside
it. Its object code is kept, and llvmlite loads that in milliseconds: a loop that was compiled once
needs numba no more.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evomerge.engine.native.source import Source

__all__ = ["Loop", "cache_folder", "has_half", "load_loop"]

Loop = Callable[..., int]
"""Called with one integer an argument, it lets other threads run."""

_VERSION = 1
_DIGEST = 32
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where loops are kept: `EVOMERGE_CACHE`, or `evomerge` in the cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EVOMERGE_CACHE") or Path(base) / "evomerge") / "loops"


@functools.cache
def has_half() -> bool:
    """Return whether the processor converts float16; else code would call what is not there."""
    try:
        from llvmlite import binding
    except ImportError:
        return False
    return platform.machine() in ("aarch64", "arm64") or bool(
        binding.get_host_cpu_features().get("f16c")
    )


def load_loop(source: Source, folder: Path) -> Loop:
    """Return a loop, compiled now or earlier.

    Args:
        source: Its text.
        folder: Where loops are kept; where that cannot be written, nothing is.
    """
    identity = hashlib.sha256(repr((_machine(), source.text)).encode()).hexdigest()[:32]
    name, file = f"loop_{identity}", folder / f"{identity}.o"
    code = _read(file)
    if code is None:
        _log.info("compiling a merge loop; it is kept in %s", folder)
        code = _compile(source, name)
        _keep(file, code)
    address = _engine().load(code, name)
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *(ctypes.c_int64 for _ in source.arguments))
    loop: Loop = kind(address)
    return loop


def _compile(source: Source, name: str) -> bytes:
    import numba
    from llvmlite import binding

    from evomerge.engine.native.ops import NAMES

    names = dict(NAMES)
    exec(compile(source.text, f"<{name}>", "exec"), names)  # noqa: S102 - our own text
    signature = numba.int64(*(numba.int64 for _ in source.arguments))
    function = numba.cfunc(signature, error_model="numpy")(names["loop"])
    text = function.inspect_llvm().replace(function.native_name, name)
    # The code must be whole: what calls into numba or Python cannot be loaded without them.
    if strange := re.findall(r"^declare .*?@(?!llvm\.)([\w.]+)\(", text, re.MULTILINE):
        raise RuntimeError(f"the loop needs {', '.join(strange)}")
    module = binding.parse_assembly(text)
    code: bytes = _engine().machine.emit_object(module)
    return code


def _read(file: Path) -> bytes | None:
    """Return kept code, or None if there is none or it is damaged."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    code = data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == data[:_DIGEST] else None


def _keep(file: Path, code: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.stem}-{secrets.token_hex(4)}")
        beside.write_bytes(hashlib.sha256(code).digest() + code)
        beside.replace(file)
    except OSError as error:
        _log.info("a merge loop is compiled again next time: %s", error)


@functools.cache
def _machine() -> tuple[object, ...]:
    """Return what machine code depends on beside the text."""
    from importlib.metadata import version

    from llvmlite import binding

    operations = Path(__file__).with_name("ops.py").read_bytes()
    features = sorted(binding.get_host_cpu_features().items())
    triple, cpu = binding.get_process_triple(), binding.get_host_cpu_name()
    versions = version("llvmlite"), version("numba")
    return _VERSION, triple, cpu, features, versions, hashlib.sha256(operations).hexdigest()


class _Engine:
    """LLVM in this process."""

    def __init__(self) -> None:
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self._binding = binding
        self.machine: Any = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(),
            features=binding.get_host_cpu_features().flatten(),
            opt=3,
            jit=True,
        )
        self._compiler = binding.create_mcjit_compiler(binding.parse_assembly(""), self.machine)

    def load(self, code: bytes, name: str) -> int:
        """Return the address of a function in object code."""
        self._compiler.add_object_file(self._binding.object_file.ObjectFileRef.from_data(code))
        self._compiler.finalize_object()
        address: int = self._compiler.get_function_address(name)
        return address


@functools.cache
def _engine() -> _Engine:
    return _Engine()
