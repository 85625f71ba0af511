"""Files that are whole or not there, and modules in files."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

__all__ = ["import_file", "replacing"]


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Give a file beside a path; at the end flush it to the disk and rename it.

    After an error nothing is left of it.

    Args:
        path: The file to make or replace; its folder must be there.
        flush: Wait for the disk. Without it the file is whole or not there after the death of any
            process, but after a power cut it may be there and damaged.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def import_file(path: Path, name: str) -> ModuleType:
    """Run a Python file and return its module.

    Args:
        path: The file.
        name: The module's name.

    Raises:
        Exception: what the file raises.
    """
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
