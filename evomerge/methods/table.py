"""The one table of merge methods.

The schema, the search space, the error messages and the reference page are derived from it. Adding
a method is a new function and a new row here; nothing in this module imports torch.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from evomerge.methods.interface import MergeMethod

__all__ = ["IGNORED_PARAMETERS", "METHODS", "MethodSpec", "ParameterSpec", "parameter_names"]


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
        paper: Where it was described, or an empty string.
        parameters: Everything it reads from a recipe.
        base: Whether `base_model` must, may or cannot take part.
        base_is_source: True if the base is one of the models that are combined; False if the task
            vectors are the differences to it.
        min_models: Fewest inputs, the base included.
        max_models: Most inputs, the base included, or None.
        function: `module:name` of the function, loaded on first use.
        random: Whether the result depends on the seed.
    """

    name: str
    summary: str
    paper: str
    parameters: tuple[ParameterSpec, ...]
    base: Literal["required", "optional", "none"]
    base_is_source: bool
    min_models: int
    max_models: int | None
    function: str
    random: bool = False

    def parameter(self, name: str) -> ParameterSpec | None:
        """Return the parameter of this name, or None."""
        return next((spec for spec in self.parameters if spec.name == name), None)

    def load(self) -> "MergeMethod":
        """Return the method's function (imports torch)."""
        module, _, name = self.function.partition(":")
        return cast("MergeMethod", getattr(importlib.import_module(module), name))


_LINEAR_WEIGHT = ParameterSpec(
    "weight",
    "share of this model",
    per_model=True,
    usual=1.0,
    required=True,
)
_TASK_WEIGHT = ParameterSpec(
    "weight",
    "factor on this model's task vector (its difference to the base)",
    per_model=True,
    usual=0.5,
    required=True,
)
_TRIM_DENSITY = ParameterSpec(
    "density",
    "share of the task vector's elements that is kept, those of largest magnitude",
    per_model=True,
    low=0.0,
    high=1.0,
    usual=0.5,
    default=1.0,
)
_DROP_DENSITY = ParameterSpec(
    "density",
    "probability with which an element of the task vector is kept",
    per_model=True,
    low=0.0,
    high=1.0,
    usual=0.5,
    default=1.0,
)
_RESCALE = ParameterSpec(
    "rescale",
    "make up for the dropped elements by a factor on the kept ones",
    kind="bool",
    usual=True,
    default=True,
)
_RESCALE_NORM = ParameterSpec(
    "rescale_norm",
    "that factor: 'l1' restores the tensor's L1 norm, 'density' is the paper's 1 / density",
    kind="choice",
    usual="l1",
    default="l1",
    choices=("l1", "density"),
)
_LAMBDA = ParameterSpec(
    "lambda",
    "factor on the merged task vector, after normalize",
    usual=1.0,
    default=1.0,
)


def _normalize(*, default: bool) -> ParameterSpec:
    return ParameterSpec(
        "normalize",
        "divide by the sum of the weights that took part",
        kind="bool",
        usual=default,
        default=default,
    )


_TASK_ARITHMETIC_PAPER = "Ilharco et al. 2023, Task Arithmetic, arXiv:2212.04089"
_TIES_PAPER = "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708"
_DARE_PAPER = "Yu et al. 2024, Language Models are Super Mario, arXiv:2311.03099"

_ROWS = (
    MethodSpec(
        name="linear",
        summary="Weighted average of the models",
        paper="Wortsman et al. 2022, Model Soups, arXiv:2203.05482",
        parameters=(_LINEAR_WEIGHT, _normalize(default=True)),
        base="optional",
        base_is_source=True,
        min_models=1,
        max_models=None,
        function="evomerge.methods.linear:linear",
    ),
    MethodSpec(
        name="slerp",
        summary="Spherical interpolation from the base model (t = 0) to one other (t = 1)",
        paper="Shoemake 1985, Animating Rotation with Quaternion Curves, doi:10.1145/325165.325242",
        parameters=(
            ParameterSpec(
                "t",
                "position on the arc: 0 is base_model, 1 the other model",
                usual=0.5,
                required=True,
            ),
        ),
        base="required",
        base_is_source=True,
        min_models=2,
        max_models=2,
        function="evomerge.methods.slerp:slerp",
    ),
    MethodSpec(
        name="task_arithmetic",
        summary="The base plus the weighted sum of the task vectors",
        paper=_TASK_ARITHMETIC_PAPER,
        parameters=(_TASK_WEIGHT, _normalize(default=False), _LAMBDA),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:task_arithmetic",
    ),
    MethodSpec(
        name="ties",
        summary="Trim task vectors to their largest elements, elect a sign, sum those that agree",
        paper=_TIES_PAPER,
        parameters=(_TASK_WEIGHT, _TRIM_DENSITY, _normalize(default=True), _LAMBDA),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:ties",
    ),
    MethodSpec(
        name="dare_ties",
        summary="Drop elements of the task vectors at random, rescale, elect a sign, sum",
        paper=f"{_DARE_PAPER}; {_TIES_PAPER}",
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _normalize(default=False),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:dare_ties",
        random=True,
    ),
    MethodSpec(
        name="dare_linear",
        summary="Drop elements of the task vectors at random, rescale, sum",
        paper=_DARE_PAPER,
        parameters=(
            _TASK_WEIGHT,
            _DROP_DENSITY,
            _normalize(default=False),
            _LAMBDA,
            _RESCALE,
            _RESCALE_NORM,
        ),
        base="required",
        base_is_source=False,
        min_models=2,
        max_models=None,
        function="evomerge.methods.task_vectors:dare_linear",
        random=True,
    ),
    MethodSpec(
        name="passthrough",
        summary="Copy one model's layers, times a scale: to stack, repeat or drop layers",
        paper="",
        parameters=(
            ParameterSpec(
                "scale", "factor on the copied tensor", per_model=True, usual=1.0, default=1.0
            ),
        ),
        base="none",
        base_is_source=True,
        min_models=1,
        max_models=1,
        function="evomerge.methods.linear:passthrough",
    ),
)

METHODS: Mapping[str, MethodSpec] = MappingProxyType({row.name: row for row in _ROWS})
"""Every merge method by its name, in the order in which they are listed to people."""

IGNORED_PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "int8_mask": "masks take no memory here, so there is nothing to save",
        "embed_slerp": "embeddings are merged like every other tensor",
    }
)
"""Parameters of mergekit files that are accepted without effect, and why."""


def parameter_names() -> tuple[str, ...]:
    """Return the names of all parameters of all methods, each once, in table order."""
    names = (spec.name for row in _ROWS for spec in row.parameters)
    return tuple(dict.fromkeys(names))
