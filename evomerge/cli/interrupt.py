"""Ctrl-C once: come to an end. Ctrl-C twice: stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Take the first SIGINT as a wish and the second as an order.

    Yields:
        A function that tells whether somebody asked for the end.
    """
    requested = False
    stream = sys.stderr  # what loads tasks turns that aside for a while

    def take(_number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        stream.write(
            "\nstopping after the trials under way, then choosing the winner; "
            "Ctrl-C again stops at once\n"
        )
        stream.flush()

    before = signal.signal(signal.SIGINT, take)
    try:
        yield lambda: requested
    finally:
        signal.signal(signal.SIGINT, before)
