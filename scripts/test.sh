#!/usr/bin/env bash
# Set up this folder (once) and run every check:  bash scripts/test.sh [PYTEST OPTIONS]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up test

failed=""
check() { # all of them run; the last line is pytest's if nothing failed
    say "$*"
    "$VENV_PYTHON" -m "$@" || failed+="${failed:+, }$1"
}

unset PYTHONDONTWRITEBYTECODE # else each of a hundred processes compiles the package anew
export OMP_NUM_THREADS=1 # tests run on all cores, each on one; they build the documentation too
check ruff check .
check ruff format --check .
check mypy
check pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=15 "$@"
if [ -n "$failed" ]; then stop "$failed found something (see above)."; fi
