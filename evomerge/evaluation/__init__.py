"""Evaluation: task sets, item splits, the live model, scores with their errors.

Importing this package imports neither torch nor lm-eval; they come with the first use.
"""

from evomerge.evaluation.evaluator import Evaluator
from evomerge.evaluation.hf import LiveModel
from evomerge.evaluation.items import ItemSplit, content_id, split_items
from evomerge.evaluation.lm_eval_generation import check_gen_kwargs
from evomerge.evaluation.lm_eval_index import shadowed_names
from evomerge.evaluation.objectives import Objective, compare
from evomerge.evaluation.readiness import check_readiness
from evomerge.evaluation.scores import ItemScores, TaskItems, TaskScore
from evomerge.evaluation.settings import EvaluationSettings, Split, TaskSettings
from evomerge.evaluation.statistics import Comparison, Estimate, mean, standard_error
from evomerge.evaluation.tasks import TaskSet

__all__ = [
    "Comparison",
    "Estimate",
    "EvaluationSettings",
    "Evaluator",
    "ItemScores",
    "ItemSplit",
    "LiveModel",
    "Objective",
    "Split",
    "TaskItems",
    "TaskScore",
    "TaskSet",
    "TaskSettings",
    "check_gen_kwargs",
    "check_readiness",
    "compare",
    "content_id",
    "mean",
    "shadowed_names",
    "split_items",
    "standard_error",
]
