"""Games of several players, trained by all algorithms in real processes."""

import json

import gymnasium
import numpy as np
import pytest

from impala_mp import errors
from impala_mp.environments import checker
from impala_mp.evaluation import evaluate, export, saved_run, versus
from impala_mp.storage import metrics
from tests.support import builders

pytestmark = pytest.mark.integration

_MEMORY = {
    "network.core": "lstm",
    "network.last_action": True,
    "network.last_reward": True,
}
_REPLAY = {"replay.reuse": 1.0, "replay.start": 8, "replay.memory_mib": 4.0}
_TARGET = {"target.period": 3}
_BY_VALUE = {**_TARGET, **_REPLAY, "vtrace.lambda_": 0.95}
_VARIANTS = {
    "vtrace": _MEMORY,
    "impact": {"algorithm": "impact", **_TARGET},
    "dqn": {"algorithm": "dqn", **_BY_VALUE, **_MEMORY, "replay.burn_in": True},
    "iqn": {"algorithm": "iqn", **_BY_VALUE},
    "server": {"inference.mode": "server", "actors.environments": 8, "batch_size": 8},
    "replay": {"replay.ratio": 0.5, "replay.trust_region": 1.0},
}
_SLOW = ("vtrace", "iqn", "replay")  # parts of what the others do


def _config(**overrides):
    return builders.config(
        **{
            "environment.id": "Connect",
            "actors.environments": 4,
            "batch_size": 8,
            "total_agent_steps": 4_000,
            "health.drift_interval": 1,
            "evaluation.episodes": 4,
            "evaluation.greedy": True,
            **overrides,
        }
    )


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(own, id=name, marks=[pytest.mark.slow] * (name in _SLOW))
        for name, own in _VARIANTS.items()
    ],
)
def test_every_algorithm_learns_from_a_game(tmp_path, overrides):
    builders.train_in_processes(_config(**overrides), tmp_path)
    records = metrics.read(str(tmp_path))
    last = records[-1]
    assert last["agent_steps"] >= 4_000
    assert last["health/learned"] + last["health/discarded"] <= last["health/committed"]
    checked = [
        r["health/drift"]
        for r in records
        if not np.isnan(r.get("health/drift", np.nan))
    ]
    assert checked, "no trajectory was compared with the learner"
    assert last["health/drift_alarms"] == 0
    for player in ("player_0", "player_1"):
        assert f"episode/return_mean/{player}" in last
    run = saved_run.SavedRun(str(tmp_path))
    played = evaluate.play(run, run.agents(), 4, greedy=False)
    assert list(played) == ["/player_0", "/player_1"]
    returns = [each.returns for each in played.values()]
    assert [a + b for a, b in zip(*returns, strict=True)] == [0.0, 0.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = _config(**{"runtime.mode": "lockstep", "evaluation.greedy": True})
    builders.train_in_processes(config, folder)
    return str(folder)


def first_column(observation, mask):
    """An opponent by a script."""
    assert observation.shape == (6, 7, 2)
    return int(np.argmax(mask))


def forbidden(observation, mask):
    return 7


def test_against_others_each_side_counts(run):
    for against in ("random", f"{__name__}:first_column", run):
        found = evaluate.versus(run, against, 9)
        assert found["wins"] + found["draws"] + found["losses"] == 9
        assert found["mean"] == (found["wins"] - found["losses"]) / 9
        sides = found["by_side"]
        assert list(sides) == ["player_0", "player_1"]
        assert sum(sides["player_0"][name] for name in ("wins", "draws", "losses")) == 5
        json.dumps(found)


def test_few_games_leave_out_sides(run):
    found = evaluate.versus(run, "random", 1)
    assert list(found["by_side"]) == ["player_0"]
    assert (abs(found["mean"]) <= 1.0, found["episodes"]) == (True, 1)
    assert evaluate.evaluate(run, 1)["episodes"] == 2  # whole games


def test_against_itself_one_side_wins_what_the_other_loses(run):
    sides = evaluate.versus(run, "newest", 4)["by_side"]
    assert sides["player_0"]["wins"] == sides["player_1"]["losses"] == 2


def test_wins_are_those_of_a_recount(run, monkeypatch):
    seen = []
    outcome = versus.outcome

    def noted(played, environment, side):
        seen.append((played, side, outcome(played, environment, side)))
        return seen[-1][-1]

    monkeypatch.setattr(versus, "outcome", noted)
    evaluate.versus(run, "random", 20)
    for played, side, found in seen:
        own = [
            value
            for column, value in zip(played.columns, played.returns, strict=True)
            if f"player_{column % 2}" == side
        ]
        assert (found.wins, found.losses) == (own.count(1.0), own.count(-1.0))
        assert found.return_mean == pytest.approx(np.mean(own))


@pytest.mark.parametrize(
    ("against", "sentence"),
    [
        ("no_such_run", "no_such_run has no config.json"),
        (f"{__name__}:missing", "missing"),
        (f"{__name__}:forbidden", "returns 7. It must return an action from 0 to 6"),
    ],
)
def test_opponents_that_cannot_play_are_refused(run, against, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        evaluate.versus(run, against, 2)


def test_a_single_player_has_no_opponent(tmp_path):
    config = builders.config(**{"runtime.mode": "lockstep", "total_agent_steps": 60})
    config.evaluation.episodes = 2
    builders.train_in_processes(config, tmp_path)
    with pytest.raises(errors.BadInput, match="needs a game of several players"):
        evaluate.versus(str(tmp_path), "random", 2)


def test_a_policy_of_a_game_is_exported(run, tmp_path):
    export.export(run, "torch", str(tmp_path / "policy.pt2"))


# Settings that have no meaning.


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"environment.shows_state": True}, "needs the state"),
        ({"environment.tuples_are_players": True}, "needs a Gymnasium environment"),
        ({"environment.id": "Catch", "environment.shows_player": True}, "several play"),
        ({"environment.id": "Catch, Connect"}, "Tasks have a single player each"),
        ({"environment.id": f"{__name__}:Unknown"}, "has no possible_agents"),
    ],
)
def test_what_a_game_has_not_is_refused(tmp_path, overrides, sentence):
    config = _config(**overrides)
    if "," not in config.environment.id:  # tasks are checked one by one
        found = [finding.text for finding in checker.check(config)]
        assert any(sentence in text for text in found), found
    with pytest.raises(errors.BadInput, match=sentence):
        builders.train_in_processes(config, tmp_path)


class Unknown:
    """A game that does not say who plays."""

    def agent_iter(self):
        return iter(())

    unwrapped = property(lambda self: self)

    def close(self):
        pass


def test_environments_are_rounded_to_whole_games(tmp_path, capsys):
    config = _config(**{"actors.environments": 3, "batch_size": 12})
    config.runtime.mode, config.total_agent_steps = "lockstep", 100
    builders.train_in_processes(config, tmp_path)
    assert "actors.environments = 4 instead of 3" in capsys.readouterr().out
    config = _config(**{"actors.environments": 3, "batch_size": 6})
    with pytest.raises(errors.BadInput, match="must be a multiple of"):
        builders.train_in_processes(config, tmp_path / "other")


class Crowd:
    """A parallel game of many players, one step long."""

    metadata = {"render_modes": []}
    unwrapped = property(lambda self: self)

    def __init__(self, num_players=9):
        self.possible_agents = tuple(f"p{i}" for i in range(num_players))

    def observation_space(self, player):
        return gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)

    def action_space(self, player):
        return gymnasium.spaces.Discrete(2)

    def _each(self, value):
        return dict.fromkeys(self.possible_agents, value)

    def reset(self, seed=None, options=None):
        self.agents = self.possible_agents
        return self._each(np.zeros(2, np.float32)), self._each({})

    def step(self, actions):
        self.agents = ()
        observations = self._each(np.zeros(2, np.float32))
        ends = self._each(True), self._each(False)
        return observations, self._each(1.0), *ends, self._each({})

    def close(self):
        pass


@pytest.mark.parametrize("num_players", [1, 9])
def test_a_game_may_have_one_player_or_many(tmp_path, num_players):
    config = _config(
        **{
            "environment.id": f"{__name__}:Crowd",
            "actors.environments": num_players,
            "batch_size": 2 * num_players,
            "runtime.mode": "lockstep",
            "total_agent_steps": 40 * num_players,
        }
    )
    config.environment.kwargs.num_players = num_players
    assert {each.verdict for each in checker.check(config)} == {checker.OK}
    builders.train_in_processes(config, tmp_path)
    assert metrics.read(str(tmp_path))[-1]["episode/return_mean"] == 1.0
