"""Proposers: ask for a point, tell its score."""

from evomerge.proposers.base import Proposer, UnitSpace
from evomerge.proposers.make import PROPOSERS, make_proposer
from evomerge.proposers.optuna_samplers import distribution

__all__ = ["PROPOSERS", "Proposer", "UnitSpace", "distribution", "make_proposer"]
