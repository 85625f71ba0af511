"""A proposer of the user's own: ``module:Class``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evomerge.errors import EvomergeError, SpaceError
from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.space import Value, is_user_class
from evomerge.user_code import load_callable

__all__ = ["check_user_class", "make_user_proposer"]

_METHODS = ("ask", "recall", "tell", "should_stop")


def check_user_class(name: str, folder: Path) -> None:
    """Load the class of an optimizer that is the user's: what is wrong with it shows at once.

    Args:
        name: The optimizer; nothing is done for a built-in one.
        folder: The space file's folder.

    Raises:
        SpaceError: if there is no such module or class, or importing it fails.
    """
    if is_user_class(name):
        load_callable(name, folder, role="optimizer")


def make_user_proposer(
    name: str,
    folder: Path,
    space: UnitSpace,
    *,
    start: Mapping[str, Value],
    known: Sequence[tuple[Mapping[str, Value], Told]],
    seed: int,
    num_objectives: int,
) -> Proposer:
    """Make a proposer of a user's class.

    The class is called as ``Class(space, start=…, known=…, seed=…, num_objectives=…)``, with the
    arguments of this function. Where it cannot search such a space, it raises a ``ValueError``.

    Args:
        name: ``module:Class``.
        folder: The space file's folder.
        space: Dimensions and the unit cube.
        start: The point to start from: the best one that is known.
        known: Points with known results.
        seed: Seed of the run.
        num_objectives: How many numbers are raised.

    Raises:
        SpaceError: if there is no such class, making it fails, or it is no proposer.
    """
    make = load_callable(name, folder, role="optimizer")
    try:
        proposer = make(
            space, start=dict(start), known=list(known), seed=seed, num_objectives=num_objectives
        )
    except EvomergeError:
        raise
    except Exception as error:  # the class is the user's
        raise SpaceError(
            f"optimizer {name!r}: making it failed: {type(error).__name__}: {error}; it is called "
            "as Class(space, start=…, known=…, seed=…, num_objectives=…)"
        ) from error
    missing = [each for each in _METHODS if not callable(getattr(proposer, each, None))]
    if missing:
        raise SpaceError(
            f"optimizer {name!r}: a proposer has the methods {', '.join(_METHODS)}; "
            f"{', '.join(missing)} is missing"
        )
    return proposer  # type: ignore[no-any-return]
