"""What is known about a merge method and its parameters: the types of the method table's rows.

Nothing here imports torch.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from evomerge.methods.interface import MergeMethod, Settings

__all__ = ["MethodSpec", "ParameterSpec"]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """What a parameter is called, means and may be.

    Attributes:
        name: The key in a recipe.
        help: One line for people.
        per_model: Whether each model has its own value (it may still be given for all at once).
        kind: The type of a value; `choice` is one of `choices`.
        low: Smallest legal value, or None.
        high: Largest legal value, or None.
        usual: A value to start with.
        required: Whether a recipe must give it.
        default: The value of a recipe that does not give it.
        choices: The legal values of a `choice`.
    """

    name: str
    help: str
    per_model: bool = False
    kind: Literal["float", "bool", "int", "choice"] = "float"
    low: float | None = None
    high: float | None = None
    usual: float | bool | str = 1.0
    required: bool = False
    default: float | bool | str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One row: a merge method and its rules.

    Attributes:
        name: The value of `merge_method`.
        summary: One line for people.
        formula: The result, in the words of `evomerge.methods.table.SYMBOLS`.
        use: When to take it, one line for people.
        paper: Where it was described, or an empty string.
        parameters: Everything it reads from a recipe.
        base: Whether `base_model` must, may or cannot take part.
        base_is_source: True if the base is one of the models that are combined; False if the task
            vectors are the differences to it. A base that is optional and no source turns
            models into task vectors where it is given.
        min_models: Fewest inputs; a base that is required is included, one that is optional and
            no source is not.
        max_models: Most inputs in the same way, or None.
        function: `module:name` of the function, loaded on first use.
        random: Whether the result depends on the seed.
        rule: `module:name` of what refuses numbers that do not go together, if anything does.
    """

    name: str
    summary: str
    formula: str
    use: str
    paper: str
    parameters: tuple[ParameterSpec, ...]
    base: Literal["required", "optional", "none"]
    base_is_source: bool
    min_models: int
    max_models: int | None
    function: str
    random: bool = False
    rule: str = ""

    def parameter(self, name: str) -> ParameterSpec | None:
        """Return the parameter of this name, or None."""
        return next((spec for spec in self.parameters if spec.name == name), None)

    def num_models(self) -> str:
        """Return how many models it takes, in words."""
        if self.max_models is None:
            count = f"{self.min_models} or more"
        elif self.min_models == self.max_models:
            count = f"exactly {self.min_models}"
        else:
            count = f"{self.min_models} to {self.max_models}"
        return f"{count}, base_model included" if self.base == "required" else count

    def load(self) -> "MergeMethod":
        """Return the method's function (imports torch)."""
        return cast("MergeMethod", _load(self.function))

    def check(self, settings: "Settings") -> None:
        """Refuse numbers of one tensor that do not go together (imports torch).

        Raises:
            RecipeError: saying which and why.
        """
        if self.rule:
            _load(self.rule)(settings)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
