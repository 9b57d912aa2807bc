#!/usr/bin/env bash
# Sets up .venv, checks format, lint and types, and runs the tests.
#   bash tools/test.sh [pytest arguments, for example -m slow]
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/install.sh" test

export OMP_NUM_THREADS=1
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
