"""The search: driver, study, baselines and the choice of the winner."""

from evomerge.search.baselines import Baseline, baselines, find_models, parent_recipe
from evomerge.search.directory import RunDirectory, write_atomically
from evomerge.search.evaluate import evaluate_recipe
from evomerge.search.fronts import Coverage, Fronts, search_front
from evomerge.search.inspection import Inspection, ModelRow, inspect_file, inspect_loaded
from evomerge.search.item_views import (
    TaskComparison,
    compare_trials,
    export_items,
    item_values,
    shared_items,
    trial_items,
)
from evomerge.search.layout import read_trial
from evomerge.search.monitor import Monitor, SilentMonitor, Stage
from evomerge.search.names import score_columns, short_constraint, short_names, trial_name
from evomerge.search.opening import OpenRun, open_run
from evomerge.search.records import CANDIDATES, Summary, TrialRecord
from evomerge.search.result import RunResult, VersusBaseline
from evomerge.search.run import run, worker_spec
from evomerge.search.storage import open_storage
from evomerge.search.study import Study
from evomerge.search.verdicts import Verdict

__all__ = [
    "CANDIDATES",
    "Baseline",
    "Coverage",
    "Fronts",
    "Inspection",
    "ModelRow",
    "Monitor",
    "OpenRun",
    "RunDirectory",
    "RunResult",
    "SilentMonitor",
    "Stage",
    "Study",
    "Summary",
    "TaskComparison",
    "TrialRecord",
    "Verdict",
    "VersusBaseline",
    "baselines",
    "compare_trials",
    "evaluate_recipe",
    "export_items",
    "find_models",
    "inspect_file",
    "inspect_loaded",
    "item_values",
    "open_run",
    "open_storage",
    "parent_recipe",
    "read_trial",
    "run",
    "score_columns",
    "search_front",
    "shared_items",
    "short_constraint",
    "short_names",
    "trial_items",
    "trial_name",
    "worker_spec",
    "write_atomically",
]
