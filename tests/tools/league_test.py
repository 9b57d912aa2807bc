"""The cross table of runs and snapshots."""

import pathlib
import runpy

import pytest

from impala_mp import errors
from tests.support import builders

_ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(_ROOT / "tools" / "league.py"))


def _train(folder, **overrides):
    fields = {
        "environment.id": "Connect",
        "runtime.mode": "lockstep",
        "network.torso": "mlp",
        "actors.environments": 4,
        "batch_size": 8,
        "total_agent_steps": 200,
        "evaluation.episodes": 2,
        **overrides,
    }
    builders.train_in_processes(builders.config(**fields), folder)
    return str(folder)


@pytest.mark.integration
def test_runs_and_snapshots_play_each_other(tool, tmp_path):
    one = _train(tmp_path / "one", **{"league.every": 100})
    other = _train(tmp_path / "other", seed=1)
    paths = [one, other, f"{one}/league/1.pt"]
    rates = tool["cross_table"](paths, 4)
    for i in range(3):
        assert rates[i][i] is None
        for j in range(i):
            assert rates[i][j] + rates[j][i] == 1.0
            assert rates[i][j] * 4 % 0.5 == 0.0
    with pytest.raises(errors.BadInput, match="plays another game than"):
        tool["cross_table"](
            [one, _train(tmp_path / "c", **{"environment.id": "Catch"})], 4
        )


def test_a_draw_counts_half(tool):
    assert (
        tool["win_rate"]({"wins": 2, "draws": 3, "losses": 5, "episodes": 10}) == 0.35
    )


def test_the_table_has_a_row_each(tool):
    lines = tool["as_text"](["a/long/name", "b"], [[None, 0.75], [0.25, None]])
    assert [line.split() for line in lines] == [
        ["1", "2", "mean"],
        ["1", "a/long/name", "-", "0.750", "0.750"],
        ["2", "b", "0.250", "-", "0.250"],
    ]
