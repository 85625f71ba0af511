"""Plots and pages for people."""

from evomerge.report.dashboard import serve_dashboard
from evomerge.report.page import write_report
from evomerge.report.readable_storage import optuna_study

__all__ = ["optuna_study", "serve_dashboard", "write_report"]
