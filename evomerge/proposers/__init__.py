"""Proposers: ask for a point, tell its score."""

from evomerge.proposers.auto import Choice, choose
from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.make import PROPOSERS, make_proposer, plan_for
from evomerge.proposers.optuna_study import distribution
from evomerge.proposers.stage_plan import StagePlan, plan_stages
from evomerge.proposers.user import check_user_class

__all__ = [
    "PROPOSERS",
    "Choice",
    "Proposer",
    "StagePlan",
    "Told",
    "UnitSpace",
    "check_user_class",
    "choose",
    "distribution",
    "make_proposer",
    "plan_for",
    "plan_stages",
]
