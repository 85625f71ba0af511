"""Proposers: ask for a point, tell its score."""

from evomerge.proposers.base import Proposer, Told, UnitSpace
from evomerge.proposers.make import PROPOSERS, make_proposer
from evomerge.proposers.optuna_samplers import distribution

__all__ = ["PROPOSERS", "Proposer", "Told", "UnitSpace", "distribution", "make_proposer"]
