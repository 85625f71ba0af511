"""A proposer of the user's own: ``module:Class``."""

import inspect
import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.errors import EvomergeError, SpaceError, nearest
from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.space import Dimension, Value, is_user_class
from evomerge.user_code import load_callable

__all__ = ["check_user_class", "make_user_proposer"]

_CALL = "it is called as Class(space, start=…, known=…, seed=…, num_objectives=…)"
_METHODS = ("ask", "recall", "tell", "should_stop")
_FUZZ = 1e-9


def check_user_class(name: str, folder: Path) -> None:
    """Load the class of an optimizer that is the user's: what is wrong with it shows at once.

    Args:
        name: The optimizer; nothing is done for a built-in one.
        folder: The space file's folder.

    Raises:
        SpaceError: if there is no such module or class, importing it fails, or it cannot be called
            as it will be.
    """
    if not is_user_class(name):
        return
    make = load_callable(name, folder, role="optimizer")
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # it has none that Python could read
        return
    try:
        signature.bind(None, start={}, known=[], seed=0, num_objectives=1)
    except TypeError as error:
        raise SpaceError(
            f"optimizer {name!r}: the class cannot be made: {error}; {_CALL}"
        ) from error


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
            f"optimizer {name!r}: making it failed: {_told_by(error)}; {_CALL}"
        ) from error
    missing = [each for each in _METHODS if not callable(getattr(proposer, each, None))]
    if missing:
        raise SpaceError(
            f"optimizer {name!r}: a proposer has the methods {', '.join(_METHODS)}; "
            f"{', '.join(missing)} is missing"
        )
    return _UserProposer(name, proposer, space)


class _UserProposer:
    """A user's proposer: what it does wrong is one message, and no score.

    Args:
        name: ``module:Class``.
        inner: The proposer.
        space: Where its points are to be.
    """

    def __init__(self, name: str, inner: Any, space: UnitSpace) -> None:
        self._name = name
        self._inner = inner
        self._dimensions = space.dimensions

    def ask(self, number: int) -> dict[str, Value]:
        """Return the next point, checked."""
        point = self._call("ask", number)
        try:
            return _checked(point, self._dimensions)
        except SpaceError as error:
            raise SpaceError(
                f"optimizer {self._name!r}: ask({number}) {error}; mend it, and the same command "
                "goes on"
            ) from None

    def recall(self, number: int, point: Mapping[str, Value]) -> None:
        """Repeat a question of an earlier process."""
        self._call("recall", number, point)

    def tell(self, number: int, told: Told) -> None:
        """Take a result."""
        self._call("tell", number, told)

    def should_stop(self) -> str | None:
        """Return why there is nothing left to propose; True and False are taken for an answer."""
        reason = self._call("should_stop")
        if not reason:
            return None
        return reason if isinstance(reason, str) else "the optimizer has nothing left to propose"

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._inner, method)(*arguments)
        except EvomergeError:
            raise
        except Exception as error:  # the class is the user's
            number = str(arguments[0]) if arguments else ""
            shown = f"{method}({number}{', …' * (len(arguments) > 1)})"
            raise SpaceError(
                f"optimizer {self._name!r}: {shown} raised {_told_by(error)}; mend it, and the "
                "same command goes on"
            ) from error


def _checked(point: Any, dimensions: Sequence[Dimension]) -> dict[str, Value]:
    """Return a point in the order of the dimensions, with plain numbers.

    Raises:
        SpaceError: saying what is wrong with it.
    """
    if not isinstance(point, Mapping):
        raise SpaceError(f"returned {point!r}, and not a dict from dimension to value")
    found: dict[str, Value] = {}
    for dimension in dimensions:
        if not dimension.exists(found):
            continue
        if dimension.name not in point:
            raise SpaceError(f"returned no value for {dimension.name}")
        found[dimension.name] = _legal(dimension, point[dimension.name])
    for name in point:
        if name not in found:
            wrong = any(dimension.name == name for dimension in dimensions)
            why = "does not exist at this point" if wrong else nearest(str(name), found)
            raise SpaceError(f"returned a value for {name!r}: {why}")
    return found


def _legal(dimension: Dimension, value: Any) -> Value:
    name = dimension.name
    if isinstance(value, np.generic):
        value = value.item()
    if dimension.kind == "choice":
        for option in dimension.choices:
            if isinstance(option, bool) is isinstance(value, bool) and option == value:
                return option
        options = ", ".join(map(repr, dimension.choices))
        raise SpaceError(f"returned {name} = {value!r}, which is none of {options}")
    kind = "a whole number" if dimension.kind == "int" else "a number"
    wanted = f"{kind} from {dimension.low:g} to {dimension.high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpaceError(f"returned {name} = {value!r}, which is not {wanted}")
    number = float(value)
    slack = _FUZZ * max(abs(dimension.low), abs(dimension.high))  # of rounding, not of thought
    inside = dimension.low - slack <= number <= dimension.high + slack
    if not math.isfinite(number) or not inside or (dimension.kind == "int" and number % 1):
        raise SpaceError(f"returned {name} = {number:g}, which is not {wanted}")
    return dimension.clip(number)


def _told_by(error: Exception) -> str:
    """Return an error of a user's code on one line, with its place there."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "site-packages" not in frame.filename
    ]
    if not frames:
        return text
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
