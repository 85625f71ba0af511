"""Plots and pages for people."""

from evomerge.report.dashboard import serve_dashboard
from evomerge.report.page import write_report

__all__ = ["serve_dashboard", "write_report"]
