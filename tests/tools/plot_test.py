"""The plotting tool: which runs belong together, and under which name."""

import pathlib
import runpy
import subprocess
import sys

import pytest

from impala_mp import errors

_TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "plot.py"


@pytest.fixture(scope="module")
def named():
    return runpy.run_path(str(_TOOL))["_named"]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["runs/a"], {"a": ["runs/a"]}),
        (["runs/a/", "runs/b"], {"a": ["runs/a/"], "b": ["runs/b"]}),
        (["A/0", "B/0"], {"A/0": ["A/0"], "B/0": ["B/0"]}),
        (["A/0", "B/0", "C/1"], {"A/0": ["A/0"], "B/0": ["B/0"], "1": ["C/1"]}),
        (["one=A/0,A/1", "B/0"], {"one": ["A/0", "A/1"], "0": ["B/0"]}),
    ],
)
def test_each_group_has_a_name(named, groups, expected):
    assert named(groups) == expected


@pytest.mark.parametrize("groups", [["a=A/0", "a=B/0"], ["A/0", "A/0"], ["0=A", "B/0"]])
def test_a_name_that_is_given_twice_is_refused(named, groups):
    with pytest.raises(errors.BadInput, match="Give each its own: LABEL="):
        named(groups)


@pytest.mark.integration
def test_the_refusal_is_a_sentence(tmp_path):
    command = [sys.executable, str(_TOOL), f"--output={tmp_path}/a.png"]
    done = subprocess.run([*command, "a=b", "a=c"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("plot.py: two groups have the name 'a'.")
