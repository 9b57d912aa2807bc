"""tools/gpu_check.sh with a python that only plays its part: code, time, leftovers."""

import os
import pathlib
import subprocess
import time

import pytest

pytestmark = pytest.mark.integration

_SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "gpu_check.sh"
_BENCHMARKS = 6  # each a JSON line

# Fails or hangs where its arguments contain $FAILS or $HANGS; one that hangs leaves a
# child that takes no order to end.
_PYTHON = """#!/usr/bin/env bash
case "$*" in
*venv.create*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
esac
[[ -n $FAILS && "$*" == *$FAILS* ]] && exit 3
if [[ -n $HANGS && "$*" == *$HANGS* ]]; then
  (trap '' TERM; exec sleep 100) &
  echo $! >"$CHILD"
  sleep 100
fi
[[ "$*" == *benchmark.py* ]] && echo '{"efficiency": 1.0}'
exit 0
"""


def _check(tmp_path, fails="", hangs="", budget_secs=60):
    """(exit code, output, seconds, the child of the part that hung)."""
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    told = {
        "PYTHON": str(python),
        "BUDGET_SECS": str(budget_secs),
        "FAILS": fails,
        "HANGS": hangs,
        "CHILD": str(tmp_path / "child"),
    }
    start = time.monotonic()
    done = subprocess.run(
        ["bash", str(_SCRIPT), str(tmp_path / "out")],
        env={**os.environ, **told},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, time.monotonic() - start


def _is_alive(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_all_parts_are_run_and_it_succeeds(tmp_path):
    code, output, _ = _check(tmp_path)
    assert code == 0, output
    assert "All parts succeeded." in output
    assert output.split("--- train_actors")[1].count('{"efficiency') >= _BENCHMARKS
    assert {path.stem for path in (tmp_path / "out").glob("*.txt")} == {
        *("venv", "install", "device", "tests", "memory"),
        *("learner", "learner_graph", "learner_deep", "train_server", "train_actors"),
    }


@pytest.mark.parametrize(
    ("fails", "name"),
    [
        ("pytest -q", "tests"),
        (" memory ", "memory"),
        ("inference.mode", "train_server"),
    ],
)
def test_a_part_that_fails_fails_the_check_and_no_other(tmp_path, fails, name):
    code, output, _ = _check(tmp_path, fails=fails)
    assert code == 1
    assert f"Failed: {name}." in output
    assert "--- train_actors" in output


@pytest.mark.parametrize("fails", ["venv.create", "-m pip", "cuda.is_available"])
def test_without_packages_or_a_gpu_there_is_nothing_to_check(tmp_path, fails):
    code, output, _ = _check(tmp_path, fails=fails)
    assert code == 1
    assert "--- tests" not in output


def test_all_parts_share_one_budget_and_no_process_outlives_it(tmp_path):
    code, output, seconds = _check(tmp_path, hangs="benchmark.py train", budget_secs=8)
    assert code == 1
    assert seconds < 40
    assert "Failed: train_server train_actors." in output
    assert not _is_alive(int((tmp_path / "child").read_text()))
