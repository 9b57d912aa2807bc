"""The best answer to a policy of tic-tac-toe, for policies whose gain is known."""

import functools
import json
import pathlib
import runpy
import sys

import numpy as np
import pytest

from tests.support import builders

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TOOL = _ROOT / "tools" / "best_response.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(_TOOL))


def _policy(tool, choose):
    """A policy that is sure: {position: one-hot of the 9 moves}."""
    return {
        position: np.eye(9)[choose(position)]
        for position in tool["positions"]()
        if tool["free"](position) and not tool["has_lost"](position)
    }


def test_there_are_5478_positions(tool):
    assert len(tool["positions"]()) == 5478


def test_whoever_plays_the_first_free_cell_is_beaten(tool):
    policy = _policy(tool, lambda position: tool["free"](position)[0])
    assert tool["gain"](policy, answers_first=True) == 1.0
    assert tool["gain"](policy, answers_first=False) == 1.0


def test_perfect_play_cannot_be_beaten(tool):
    @functools.cache
    def value(position):
        if tool["has_lost"](position):
            return -1
        moves = tool["free"](position)
        return max((-value(tool["moved"](position, m)) for m in moves), default=0)

    def best(position):
        moves = tool["free"](position)
        return max(moves, key=lambda move: -value(tool["moved"](position, move)))

    policy = _policy(tool, best)
    assert tool["gain"](policy, answers_first=True) == 0.0
    assert tool["gain"](policy, answers_first=False) == 0.0


def test_against_random_moves_the_first_player_gains_more(tool):
    policy = {
        position: np.array([piece == 0 for piece in position]) / position.count(0)
        for position in tool["positions"]()
        if tool["free"](position) and not tool["has_lost"](position)
    }
    first, second = (tool["gain"](policy, answers_first=x) for x in (True, False))
    assert 0.98 < first < 1.0
    assert 0.8 < second < first


@pytest.mark.integration
def test_the_command_reads_a_run(tool, tmp_path, capsys, monkeypatch):
    board = {"rows": 3, "columns": 3, "length": 3, "gravity": False}
    config = builders.config(
        **{
            "environment.id": "Connect",
            "actors.environments": 4,
            "batch_size": 8,
            "total_agent_steps": 400,
            "runtime.mode": "lockstep",
            "evaluation.episodes": 2,
        }
    )
    config.environment.kwargs.update(board)
    builders.train_in_processes(config, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", [str(_TOOL), str(tmp_path / "run")])
    runpy.run_path(str(_TOOL), run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["positions"] == 5478
    assert set(found["gain"]) == {"first", "second"}
