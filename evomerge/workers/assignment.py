"""What goes to a worker and what comes back: plain data, safe to send between processes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.evaluation import ItemScores
from evomerge.evaluation.calibration import Logistic
from evomerge.evaluation.settings import EvaluationSettings, Split, TaskSettings

__all__ = [
    "Assignment",
    "Failed",
    "Loaded",
    "Outcome",
    "Scored",
    "Sloped",
    "WorkerInfo",
    "WorkerSpec",
]


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to start.

    Attributes:
        models: Every checkpoint a candidate may name; loaded once.
        tasks: The tasks of the objective.
        evaluation: How they are scored.
        seed: The run's seed: masks and item splits come from it.
        folder: Folder of the space file, for relative task folders.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        max_threads: Threads that torch may use at most; None means every core.
        code_confirmed: The user has said, outside the space, that tasks may run code.
    """

    models: tuple[str, ...]
    tasks: tuple[TaskSettings, ...]
    evaluation: EvaluationSettings
    seed: int
    folder: str
    device: str = "cpu"
    max_threads: int | None = None
    code_confirmed: bool = False

    @property
    def num_gpus(self) -> int:
        """GPUs that one worker takes."""
        if not self.device.startswith("cuda"):
            return 0
        options = self.evaluation.vllm if self.evaluation.backend == "vllm" else {}
        sizes = ("tensor_parallel_size", "pipeline_parallel_size")
        return math.prod(int(options.get(size) or 1) for size in sizes)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is loaded: the same in every worker of a pool.

    Attributes:
        items: Split -> task -> number of items.
        objective: Task -> weight, groups and tags expanded.
        load_seconds: Seconds spent on reading sources and building tasks.
        bank_bytes: Bytes of resident source tensors in each worker.
        ids: Split -> task -> the ids of its items.
        task_keys: Task -> hash of all that decides an item's result beside the weights.
        task_identities: Task -> hash of what a run may not change in it.
        members: Task, group or tag as the space names it -> its tasks.
        smooth: Tasks that a smooth metric guides while the search goes on.
        blended: Those of them that the reported metric guides too.
        climbable: Tasks with a probability of the gold answer to climb; none without gradients.
        answers: Task -> tokens that an answer may have, of the tasks that ask for one.
    """

    items: Mapping[Split, Mapping[str, int]]
    objective: Mapping[str, float]
    load_seconds: float
    bank_bytes: int
    ids: Mapping[Split, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    task_keys: Mapping[str, str] = field(default_factory=dict)
    task_identities: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    smooth: tuple[str, ...] = ()
    blended: tuple[str, ...] = ()
    climbable: tuple[str, ...] = ()
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkerInfo(Loaded):
    """What a started worker says about itself.

    Attributes:
        pid: Its process.
    """

    pid: int


@dataclass(frozen=True)
class Assignment:
    """One recipe to score, or to find the slope at.

    Attributes:
        number: Trial number, to match the outcome.
        recipe: The recipe as plain data.
        split: Which items.
        items: Task -> ids of these items only; None means all of the split.
        tangents: Recipes beside this one. With any, nothing is scored: the outcome is
            :class:`Sloped`.
        worth: Task -> what the probability of its gold answers is worth, for a slope; without, a
            probability counts as it is.
    """

    number: int
    recipe: dict[str, Any]
    split: Split
    items: Mapping[str, tuple[str, ...]] | None = None
    tangents: tuple[dict[str, Any], ...] = ()
    worth: Mapping[str, Logistic] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A finished evaluation.

    Attributes:
        number: Trial number.
        split: Which items.
        scores: Every item's value.
        seconds: ``materialize`` and ``score``.
        pid: The process that did it.
        scored_items: How many items the model was asked for; None means all of ``scores``.
    """

    number: int
    split: Split
    scores: ItemScores
    seconds: Mapping[str, float] = field(default_factory=dict)
    pid: int = 0
    scored_items: int | None = None


@dataclass(frozen=True)
class Sloped:
    """The slope of the expected score, from one backward pass.

    Attributes:
        number: Of the assignment.
        value: The tasks' expected scores, summed with their weights.
        slopes: By how much that changes from the recipe to each tangent, to first order.
        items: How many items the model was asked for.
        seconds: ``materialize``, ``score`` (forward and backward) and ``tangents``.
        pid: The process that did it.
    """

    number: int
    value: float
    slopes: tuple[float, ...]
    items: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    pid: int = 0


@dataclass(frozen=True)
class Failed:
    """An evaluation that gave no score.

    Attributes:
        number: Trial number.
        split: Which items.
        reason: One line for people.
        seconds: As far as it came.
        pid: The process that tried, 0 if it died.
    """

    number: int
    split: Split
    reason: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    pid: int = 0


Outcome = Scored | Failed
