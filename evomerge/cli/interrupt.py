"""Ctrl-C once: come to an end. Ctrl-C twice, or SIGTERM: stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["STOPPED", "interruptible"]

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a run that was stopped at once."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Take the first SIGINT as a wish, and the second and SIGTERM as an order.

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

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGINT, take), signal.signal(signal.SIGTERM, stop)
    try:
        yield lambda: requested
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
