"""What each optimizer can do: the one table that settings, messages and pages are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import SpaceError, nearest
from evomerge.space.dimensions import Dimension

__all__ = [
    "AUTO",
    "OPTIMIZERS",
    "Optimizer",
    "check_optimizer",
    "check_optimizer_name",
    "is_user_class",
]

AUTO = "auto"


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    Attributes:
        summary: What it is, in a few words.
        conditions: Whether dimensions may exist under a condition.
        several: Whether it raises several objectives.
    """

    summary: str
    conditions: bool = True
    several: bool = True


OPTIMIZERS: Mapping[str, Optimizer] = {
    AUTO: Optimizer("chooses one of the others by the size of the space and of the budget"),
    "cma": Optimizer("CMA-ES: a normal distribution that moves", conditions=False, several=False),
    "tpe": Optimizer("tree-structured Parzen estimator: densities of good and of other points"),
    "surrogate": Optimizer(
        "Gaussian process that takes each result for what its error makes it worth", several=False
    ),
    "gp": Optimizer("Optuna's Gaussian process with expected improvement"),
    "nsga2": Optimizer("NSGA-II: a genetic algorithm that keeps the front wide"),
    "nsga3": Optimizer("NSGA-III: the same with reference directions"),
    "qmc": Optimizer("scrambled Sobol points"),
    "random": Optimizer("independent uniform draws"),
}


def is_user_class(name: str) -> bool:
    """Return whether an optimizer is a class of the user's, ``module:Class``."""
    return ":" in name


def check_optimizer_name(name: str) -> None:
    """Check that there is an optimizer of a name, or that it can be a user's.

    Raises:
        ValueError: naming the nearest one.
    """
    if name not in OPTIMIZERS and not is_user_class(name):
        raise ValueError(
            f"there is no such optimizer; {nearest(name, OPTIMIZERS)}, or a class of yours as "
            "module:Class"
        )


def check_optimizer(
    name: str, dimensions: Sequence[Dimension], objectives: Sequence[str], where: str = ""
) -> None:
    """Check that an optimizer can search a space; a user's class says so itself.

    Args:
        name: The optimizer.
        dimensions: The space.
        objectives: Names of what is raised.
        where: The place for the message.

    Raises:
        SpaceError: naming the optimizers that can.
    """
    facts = OPTIMIZERS.get(name)
    if facts is None:
        return
    place = f"{where}: " if where else ""
    conditional = [each.name for each in dimensions if each.condition is not None]
    several = len(objectives) > 1
    able = [
        other
        for other, each in OPTIMIZERS.items()
        if (each.conditions or not conditional) and (each.several or not several)
    ]
    if several and not facts.several:
        raise SpaceError(
            f"{place}{len(objectives)} objectives ({', '.join(objectives)}) want an optimizer for "
            f"several: {_any_of(able)}, got {name}"
        )
    if conditional and not facts.conditions:
        shown = ", ".join(conditional[:3]) + (", …" if len(conditional) > 3 else "")
        raise SpaceError(
            f"{place}values that exist only with some options of a choice ({shown}) want an "
            f"optimizer that leaves values out: {_any_of(able)}, got {name}"
        )


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
