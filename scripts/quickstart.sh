#!/usr/bin/env bash
# From a clone to an exported winner: sets up .venv, searches the playground, says where things are.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

setup_venv ""
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # everything the quickstart needs is in the clone
.venv/bin/evomerge run search_spaces/quickstart.yml "$@"
cat <<'TEXT'

next:
  .venv/bin/evomerge export runs/quickstart merged      the winner as a model directory
  open runs/quickstart/report.html                      the search in pictures
  .venv/bin/evomerge run --help                         your own models and tasks
TEXT
