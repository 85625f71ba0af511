"""Whether native loops pay."""

import os

import torch

from evomerge.engine.native.jobs import Native
from evomerge.errors import PrerequisiteError

__all__ = ["native_loops"]

_PAYS = 20_000_000
_CHOICES = ("auto", "never", "always")


def native_loops(device: torch.device, elements: int) -> Native | None:
    """Return the native loops for a merge, or None where they would not pay.

    `EVOMERGE_COMPILE` is `auto` (the default), `never` or `always`.

    Args:
        device: Where it happens.
        elements: Number of elements of the merged model.

    Raises:
        PrerequisiteError: if the variable has another value.
    """
    choice = os.environ.get("EVOMERGE_COMPILE", "auto")
    if choice not in _CHOICES:
        raise PrerequisiteError(f"EVOMERGE_COMPILE={choice!r}: want {', '.join(_CHOICES)}")
    if device.type != "cpu" or choice == "never" or (choice == "auto" and elements < _PAYS):
        return None
    return Native()
