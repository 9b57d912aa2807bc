"""The policies in docs/results/policies: small, complete, and as good as stated."""

import json
import pathlib
import re

import pytest

from impala_mp.evaluation import evaluate, saved_run

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "docs" / "results" / "policies"
_KEPT = sorted(path.name for path in _FOLDER.iterdir())
_PAGE = (_FOLDER.parent / "policies.md").read_text()
_MOST_BYTES = 20_000_000  # of all


def test_they_are_small_and_each_is_on_the_page():
    files = [path for path in _FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < _MOST_BYTES
    assert sorted(re.findall(r"^\| `docs/results/policies/([^`]+)`", _PAGE, re.M)) == (
        _KEPT
    )


@pytest.mark.parametrize("name", _KEPT)
def test_each_can_be_read_and_has_the_return_of_the_page(name):
    if name.startswith("mujoco"):
        pytest.importorskip("glfw", reason="the extra `mujoco` is missing")
    folder = _FOLDER / name
    run = saved_run.SavedRun(str(folder), which="best")
    assert run.agent()
    final = next(iter(json.loads((folder / "evaluation.json").read_text()).values()))
    assert f"policies/{name}` | {final['mean']:.1f} |" in _PAGE
    assert final["episodes"] == 100


@pytest.mark.integration
def test_one_of_them_plays_as_it_did():
    found = evaluate.evaluate(str(_FOLDER / "minatar-breakout"), 20, which="best")
    assert found["mean"] > 15.0  # random: 0.5
