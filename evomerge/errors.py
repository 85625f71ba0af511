"""Errors a user can cause or meet.

One root, so that a caller can catch everything at once. Every message says the rule, what was got
and what to do, and names the place: file, YAML path, tensor or trial.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "EvaluationError",
    "EvomergeError",
    "PrerequisiteError",
    "RecipeError",
    "SpaceError",
    "StudyError",
    "nearest",
]


class EvomergeError(Exception):
    """Root of all errors of this package; the command line prints it and exits with code 2."""


class RecipeError(EvomergeError):
    """A recipe that breaks a rule of its schema or cannot be planned."""


class CheckpointError(EvomergeError):
    """A checkpoint that is missing, damaged, or does not agree with the others."""


class SpaceError(EvomergeError):
    """A search space that breaks a rule of its schema."""


class EvaluationError(EvomergeError):
    """A task, metric or item split that does not exist, or a score that cannot be computed."""


class StudyError(EvomergeError):
    """A study that is missing, locked, or was made by another space or seed."""


class PrerequisiteError(EvomergeError):
    """An optional package or a device that is not there; the message holds the install line."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the help for a misspelt name: ``"did you mean 'weight'? (valid: …)"``."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    return f"{hint}(valid: {shown})"
