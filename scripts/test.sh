#!/usr/bin/env bash
# Set up this folder (once) and run every check:  bash scripts/test.sh [PYTEST OPTIONS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up test

check() {
    say "$*"
    "$VENV_PYTHON" -m "$@" || stop "$1 found something (see above)."
}

check ruff check .
check ruff format --check .
check mypy
check pytest "$@"
