"""The tasks of a space, loaded outside a worker."""

from evomerge.evaluation import TaskSet
from evomerge.space import Space

__all__ = ["load_task_set"]


def load_task_set(space: Space, *, code_confirmed: bool) -> TaskSet:
    """Load the tasks of a space.

    Args:
        space: The space.
        code_confirmed: Tasks may run code that the model wrote, if the space says so too.

    Raises:
        EvaluationError: if a task cannot be loaded, or its items cannot be divided.
    """
    document = space.document
    return TaskSet.load(
        document.tasks,
        document.evaluation,
        seed=document.search.seed,
        folder=space.origin.folder,
        code_confirmed=code_confirmed,
    )
