"""Games against another policy in which several players are one side."""

import json
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest

from impala_mp.environments import roster
from impala_mp.evaluation import evaluate, versus
from impala_mp.workers import evaluator
from tests.support import builders


@pytest.mark.parametrize(
    ("players", "expected"),
    [
        # One kind: each player is a side.
        ("player_0 player_1", {"player_0": (0,), "player_1": (1,)}),
        ("player_1 player_2", {"player_1": (0,), "player_2": (1,)}),
        ("p9 p10 p11", {"p9": (0,), "p10": (1,), "p11": (2,)}),
        ("alone", {"alone": (0,)}),
        # Several: each kind is one, also where they alternate.
        ("red_0 red_1 blue_0 blue_1", {"red": (0, 1), "blue": (2, 3)}),
        ("red-0 blue-0 red-10", {"red": (0, 2), "blue-0": (1,)}),
        ("adversary_0 adversary_1 agent_0", {"adversary": (0, 1), "agent_0": (2,)}),
        ("white black", {"white": (0,), "black": (1,)}),
        ("first_0 second_0", {"first_0": (0,), "second_0": (1,)}),
        # Only the number at the end is one.
        ("team_1_a team_2_a", {"team_1_a": (0,), "team_2_a": (1,)}),
        ("team_1_0 team_1_1 team_2_0", {"team_1": (0, 1), "team_2_0": (2,)}),
    ],
)
def test_players_that_differ_in_their_number_are_one_side(players, expected):
    found = roster.sides_of(players.split())
    assert found == expected
    assert list(found) == list(expected)


def test_a_player_born_again_has_all_its_returns_in_one_game():
    """In the second game a is the better one, by its only life."""
    games, columns, returns = (
        [0, 0, 0, 1, 1],
        [0, 1, 0, 0, 1],
        [1.0, 3.0, 1.0, 5.0, 3.0],
    )
    played = evaluator.Played(returns, [1] * 5, {}, columns, games)
    environment = types.SimpleNamespace(players=("a", "b"))
    assert versus.outcome(played, environment, "a") == (1, 0, 1, 3.5)
    assert versus.outcome(played, environment, "b") == (1, 0, 1, 3.0)


def test_a_player_that_was_not_born_has_nothing():
    played = evaluator.Played([-1.0, 1.0, 2.0], [1] * 3, {}, [2, 1, 0], [0, 1, 1])
    environment = types.SimpleNamespace(players=("a", "b"))
    assert versus.outcome(played, environment, "b") == (1, 0, 1, 0.5)


# By player. Blue has more in all, and red_0 has more than any other player.
_REWARDS = {"red_0": 3.0, "red_1": 0.0, "blue_0": 2.0, "blue_1": 2.0}
_played = []  # (player, action)


class Teams:
    """A parallel game of two against two; players leave one after another."""

    metadata = {"render_modes": []}
    possible_agents = tuple(_REWARDS)
    unwrapped = property(lambda self: self)

    def observation_space(self, player):
        return gymnasium.spaces.Box(0.0, 4.0, (1,), np.float32)

    def action_space(self, player):
        return gymnasium.spaces.Discrete(2)

    def _see(self, players):
        return {name: np.zeros(1, np.float32) for name in players}

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return self._see(self.agents), dict.fromkeys(self.agents, {})

    def step(self, actions):
        _played.extend((name, int(action)) for name, action in actions.items())
        there, self.agents = self.agents, self.agents[1:]
        gone = {name: name not in self.agents for name in there}
        rewards = {name: _REWARDS[name] * gone[name] for name in there}
        rest = dict.fromkeys(there, False), dict.fromkeys(there, {})
        return self._see(there), rewards, gone, *rest

    def close(self):
        pass


def always_one(observation, mask):
    return 1


@pytest.fixture(scope="module", params=["all", "kind"])
def run(tmp_path_factory, request):
    """A run of one policy for all players, or of one for each team."""
    folder = tmp_path_factory.mktemp("run")
    config = builders.config(
        **{
            "environment.id": f"{__name__}:Teams",
            "environment.sharing": request.param,
            "actors.environments": 4,
            "batch_size": 4,
            "total_agent_steps": 100,
            "runtime.mode": "lockstep",
            "evaluation.episodes": 4,
        }
    )
    builders.train_in_processes(config, folder)
    return str(folder)


@pytest.mark.integration
def test_a_side_has_what_its_players_have_together(run):
    found = evaluate.versus(run, "random", 5)
    red, blue = found["by_side"]["red"], found["by_side"]["blue"]
    assert list(found["by_side"]) == ["red", "blue"]
    assert (red["wins"], red["losses"], red["return_mean"]) == (0, 3, 3.0)
    assert (blue["wins"], blue["losses"], blue["return_mean"]) == (2, 0, 4.0)
    assert (found["wins"], found["losses"], found["mean"]) == (2, 3, -0.2)


@pytest.mark.integration
def test_the_opponent_plays_the_whole_other_side(run):
    """Only the opponent's players always choose 1; our policy is nearly uniform."""
    _played.clear()
    evaluate.versus(run, f"{__name__}:always_one", 40, greedy=False)
    half = len(_played) // 2  # in which red is ours
    for moves, theirs in ((_played[:half], "blue"), (_played[half:], "red")):
        always = {
            player
            for player in Teams.possible_agents
            if all(action == 1 for name, action in moves if name == player)
        }
        assert always == {f"{theirs}_0", f"{theirs}_1"}


@pytest.mark.integration
def test_the_last_line_has_the_sides(run):
    command = [sys.executable, "-m", "impala_mp.cli.evaluate", run]
    done = subprocess.run(
        [*command, "--against=random", "--episodes=4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    names = {"mean", "wins", "draws", "losses", "return_mean"}
    assert line.keys() == {*names, "episodes", "against", "by_side"}
    assert {side: each["mean"] for side, each in line["by_side"].items()} == {
        "red": -1.0,
        "blue": 1.0,
    }
    assert all(each.keys() == names for each in line["by_side"].values())
