#!/usr/bin/env bash
# Sets up .venv, checks format, lint and types, and runs the tests.
#   bash tools/test.sh                                    all tests but the slow ones
#   bash tools/test.sh -m "not integration and not slow"  the inner loop
#   bash tools/test.sh -m slow                            the long tests
# Other arguments go to pytest too: -n 0 runs the tests one after another. A -m replaces
# the one of pyproject.toml.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/install.sh" test

export OMP_NUM_THREADS=1
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/python -m pytest -n 2 --dist worksteal --durations=25 --durations-min=0.1 "$@"
