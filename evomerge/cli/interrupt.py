"""Ctrl-C once: come to an end. Ctrl-C twice: stop."""

import signal
import sys
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Interrupt"]


class Interrupt:
    """Takes the first SIGINT as a wish and the second as an order."""

    def __init__(self) -> None:
        self._requested = False
        self._before: signal.Handlers = signal.default_int_handler  # type: ignore[assignment]

    def requested(self) -> bool:
        """Return whether somebody asked for the end."""
        return self._requested

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)  # type: ignore[assignment]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        sys.stderr.write(
            "\nstopping after the trials under way, then choosing the winner; "
            "Ctrl-C again stops at once\n"
        )
