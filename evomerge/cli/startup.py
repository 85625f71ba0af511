"""Importing large libraries without the garbage collector in the way."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import inside this block; what is imported lasts as long as the process.

    The collector would look through the hundreds of thousands of objects of torch several times
    while they are made, and once more at the exit: together as long as a third of the import.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
