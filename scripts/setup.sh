# Sourced by the other scripts: makes .venv and installs evomerge into it, once.
# Usage: setup_venv EXTRAS   (for example: setup_venv "[dev]", or setup_venv "")

setup_venv() {
  local extras="$1" python="${PYTHON:-python3}" stamp mark
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: Python 3.11 or newer is needed, $python is not; set PYTHON to one" >&2
    exit 2
  fi
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  stamp=".venv/.installed${extras//[^a-z0-9]/-}"
  mark="$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum) $PWD"
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$mark" ]; then
    echo "installing evomerge$extras into .venv (a few minutes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable ".$extras"
    echo "$mark" >"$stamp"
  fi
}
