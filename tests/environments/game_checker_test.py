"""A sound game passes; each rule is broken by a game made for it."""

import gymnasium
import numpy as np
import pytest

from impala_mp.environments import checker
from tests.support import builders

_SUBJECTS = {
    *("actions", "players", "mask", "observations", "rewards", "episodes"),
    "determinism",
}


class Game:
    """A parallel game of two players and four steps, with masks."""

    metadata = {"render_modes": []}
    possible_agents = ("a", "b")

    def __init__(self):
        self.agents = []
        self._rng = np.random.default_rng()

    unwrapped = property(lambda self: self)

    def observation_space(self, player):
        return gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32),
                "action_mask": gymnasium.spaces.MultiBinary(3),
            }
        )

    def action_space(self, player):
        return gymnasium.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._step, self.agents = 0, list(self.possible_agents)
        return self._see(), dict.fromkeys(self.agents, {})

    def step(self, actions):
        self._step += 1
        there = list(self.agents)
        over = self._step == 4
        values = [
            self._see(),
            {player: self._reward() for player in there},
            dict.fromkeys(there, over),
            dict.fromkeys(there, False),
            dict.fromkeys(there, {}),
        ]
        self.agents = [] if over else there
        return values

    def _see(self):
        return {
            player: {"observation": self._numbers(), "action_mask": self._mask()}
            for player in self.agents
        }

    def _numbers(self):
        return self._rng.uniform(-1.0, 1.0, 2).astype(np.float32)

    def _mask(self):
        return np.array([1, 0, 1], np.int8)

    def _reward(self):
        return float(self._rng.random())

    def close(self):
        pass


class NothingAllowed(Game):
    def _mask(self):
        return np.zeros(3, np.int8)


class Outside(Game):
    def _numbers(self):
        return 2.0 + super()._numbers()


class NotFinite(Game):
    def _reward(self):
        return float("nan")


class Unseeded(Game):
    def reset(self, seed=None, options=None):
        return super().reset(None)


class Idle(Game):
    possible_agents = ("a", "b", "c")

    def reset(self, seed=None, options=None):
        observations, infos = super().reset(seed)
        self.agents = ["a", "b"]
        del observations["c"]
        return observations, infos


class Endless(Game):
    def step(self, actions):
        self._step = 0
        return super().step(actions)


class Unrewarded(Game):
    def _reward(self):
        return 0.0


class Misshapen(Game):
    def _numbers(self):
        return np.zeros(3, np.float32)


def _found(name):
    config = builders.config(**{"environment.id": f"{__name__}:{name}"})
    found = checker.check(config)
    return {finding.subject: finding for finding in found}, found


def test_nothing_is_found_in_a_sound_game():
    by_subject, _ = _found("Game")
    assert by_subject.keys() == _SUBJECTS
    assert {finding.verdict for finding in by_subject.values()} == {checker.OK}
    assert "100 %" not in by_subject["players"].text  # the last row is no decision


@pytest.mark.parametrize(
    ("name", "verdict", "sentence"),
    [
        ("NothingAllowed", checker.FAIL, "allows a no action, who is to act"),
        ("Outside", checker.WARNING, "are outside their space"),
        ("NotFinite", checker.FAIL, "rewards are not finite"),
        ("Unseeded", checker.WARNING, "another play, first in observation at step 0"),
        ("Idle", checker.WARNING, "c never acted"),
        ("Endless", checker.WARNING, "none ended in 3000 random steps"),
        ("Unrewarded", checker.OK, "rewards are rare or missing"),
        ("Misshapen", checker.FAIL, "have shape [3]"),
    ],
)
def test_each_rule(name, verdict, sentence):
    _, found = _found(name)
    matching = [each for each in found if sentence in each.text]
    assert [each.verdict for each in matching] == [verdict], found
