#!/usr/bin/env bash
# Lint, types, import directions and the whole test suite; sets up .venv first.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

setup_venv "[dev]"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
.venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
