"""The search: driver, study, baselines and the choice of the winner."""

from evomerge.search.baselines import Baseline, baselines, find_models, parent_recipe
from evomerge.search.directory import RunDirectory, write_atomically
from evomerge.search.evaluate import evaluate_recipe
from evomerge.search.inspection import Inspection, ModelRow, inspect_file
from evomerge.search.monitor import Monitor, SilentMonitor, Stage
from evomerge.search.names import short_names, trial_name
from evomerge.search.records import Summary, TrialRecord, summarize
from evomerge.search.result import RunResult, VersusBaseline
from evomerge.search.run import OpenRun, open_run, run, worker_spec
from evomerge.search.study import Study, open_storage

__all__ = [
    "Baseline",
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
    "TrialRecord",
    "VersusBaseline",
    "baselines",
    "evaluate_recipe",
    "find_models",
    "inspect_file",
    "open_run",
    "open_storage",
    "parent_recipe",
    "run",
    "short_names",
    "summarize",
    "trial_name",
    "worker_spec",
    "write_atomically",
]
