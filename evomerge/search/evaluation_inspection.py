"""What a space's tasks and evaluation settings mean, and what is wrong with them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from evomerge.checkpoints import Checkpoint
from evomerge.errors import EvomergeError, PrerequisiteError
from evomerge.evaluation import TaskSet, check_gen_kwargs, shadowed_names
from evomerge.evaluation.vllm import check_vllm
from evomerge.search.baselines import baselines
from evomerge.search.budget import foresee
from evomerge.search.climb import plan_climb
from evomerge.search.objectives import ObjectiveFacts, make_objectives
from evomerge.search.readiness import find_unready
from evomerge.search.run import worker_spec
from evomerge.search.task_sets import load_task_set
from evomerge.space import Space

if TYPE_CHECKING:
    from evomerge.search.inspection import Inspection

__all__ = ["inspect_evaluation"]


def inspect_evaluation(
    space: Space,
    checkpoints: Mapping[str, Checkpoint] | None,
    found: "Inspection",
    *,
    code_confirmed: bool,
) -> TaskSet | None:
    """Load the tasks and say what they mean; None if they cannot be loaded.

    Args:
        space: The space.
        checkpoints: Its models; None if not all are at hand.
        found: Gets facts, notes and problems.
        code_confirmed: Tasks may run code that the model wrote, if the space says so too.
    """
    tasks = _load_tasks(space, found, code_confirmed=code_confirmed)
    if tasks is not None:
        _inspect_tasks(space, tasks, found)
        _inspect_names(space, tasks, found)
        # With other problems there may be nothing that can be planned.
        if checkpoints is not None and not found.problems:
            _inspect_readiness(space, checkpoints, tasks, found)
    return tasks


def _inspect_names(space: Space, tasks: TaskSet, found: "Inspection") -> None:
    names = [*tasks.members, *tasks.tasks]
    shadowed = shadowed_names(names, space.document.evaluation, space.origin.folder)
    for name, path in shadowed.items():
        found.notes.append(f"{name} is the one of {path}, and not lm-eval's own of that name")


def _inspect_readiness(
    space: Space, checkpoints: Mapping[str, Checkpoint], tasks: TaskSet, found: "Inspection"
) -> None:
    try:
        found.notes += find_unready(space, checkpoints, tasks.answers)
    except EvomergeError as error:
        found.problems.append(str(error))


def _check_backend(space: Space, found: "Inspection") -> None:
    """Find what is wrong for the backend; note what a run would miss on this machine."""
    evaluation = space.document.evaluation
    device = worker_spec(space).device
    try:
        if evaluation.backend == "vllm":
            check_vllm(evaluation, device)
        else:
            check_gen_kwargs(evaluation)
    except PrerequisiteError as error:  # the run may be meant for another machine
        found.notes.append(str(error))
    except EvomergeError as error:
        found.problems.append(str(error))
    if evaluation.proxy is not None:
        found.facts.append(
            f"proxy: the engine with {evaluation.proxy} scores search items; one without it "
            "scores held-out items and so decides"
        )
    if evaluation.compile:
        from evomerge.evaluation.compiled import check_compiler

        try:
            check_compiler(device)
        except PrerequisiteError as error:
            found.notes.append(str(error))


def _load_tasks(space: Space, found: "Inspection", *, code_confirmed: bool) -> TaskSet | None:
    """Load the tasks; None if that cannot be."""
    _check_backend(space, found)
    try:
        return load_task_set(space, code_confirmed=code_confirmed)
    except EvomergeError as error:
        text = str(error)
        if "offline" in text.lower() or "cannot be reached" in text:
            found.notes.append(text)
        else:
            found.problems.append(text)
        return None


def _inspect_tasks(space: Space, tasks: TaskSet, found: "Inspection") -> None:
    facts = ObjectiveFacts(tasks.objective.weights, tasks.members)
    try:
        make_objectives(space, facts)
    except EvomergeError as error:
        found.problems.append(str(error))
    for name, ids in tasks.items("search").items():
        holdout = len(tasks.items("holdout")[name])
        smooth = tasks.tasks[name].smooth
        guide = ""
        if smooth is not None:
            beside = f"{tasks.tasks[name].metric_name} and " if smooth.is_blended else ""
            guide = f", guided by {beside}{smooth.kind}"
        found.facts.append(f"task {name}: {len(ids)} search items, {holdout} held-out items{guide}")
    sizes = [sum(map(len, tasks.items(split).values())) for split in ("search", "holdout")]
    fact, warning = foresee(space.document.search, len(baselines(space)), *sizes)
    found.facts.append(fact)
    found.notes += [warning] if warning else []
    _inspect_climb(space, tasks, facts, found)


def _inspect_climb(
    space: Space, tasks: TaskSet, facts: ObjectiveFacts, found: "Inspection"
) -> None:
    items = {name: len(ids) for name, ids in tasks.items("search").items()}
    spent = len(baselines(space)) * sum(items.values())
    try:
        plan = plan_climb(space, facts, items, tasks.climbable, spent=spent)
    except EvomergeError as error:
        found.problems.append(str(error))
        return
    what = f"{plan.steps} steps of {plan.items} items a task" if plan.steps else "none"
    found.facts.append(f"climb: {what} ({plan.reason})")
