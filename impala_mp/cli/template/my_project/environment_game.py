"""Environment: two walkers in a corridor who must light two lamps at once."""

from typing import Any

import gymnasium
import numpy as np


class MyProject:
    """A game of two players by PettingZoo's interface, which needs no import of it.

    Cells in a row, and lamps on two of them. Both players act at once: left, stay,
    right. Each gets 0.1 in every step in which both lamps have a walker. Observations
    float32 [4]: the positions of oneself, the other and the lamps, from -1 to 1. Games
    are truncated after 20 steps. Truncation is no end: the learner still counts the
    value of the next state.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
    possible_agents = ("first", "second")

    def __init__(self, length: int = 7, render_mode: str | None = None) -> None:
        """Takes fields of the config: --config.environment.kwargs.length=15."""
        self.render_mode, self.agents = render_mode, list[str]()
        self._length, self._rng = length, np.random.default_rng()

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        return gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        return gymnasium.spaces.Discrete(3)

    def reset(
        self, seed: int | None = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:  # draw all random numbers from one generator
            self._rng = np.random.default_rng(seed)
        self.agents, self._steps = list(self.possible_agents), 0
        self._lamps = self._rng.choice(self._length, size=2, replace=False)
        self._places = self._rng.integers(self._length, size=2)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Returns observations, rewards, terminated, truncated and infos by agent."""
        there = self.agents
        moves = np.array([int(actions[agent]) - 1 for agent in there])
        self._places = np.clip(self._places + moves, 0, self._length - 1)
        self._steps += 1
        lit = set(self._places.tolist()) == set(self._lamps.tolist())
        is_over = self._steps == 20
        self.agents = [] if is_over else there
        return (
            self._observations(),
            dict.fromkeys(there, 0.1 * lit),
            dict.fromkeys(there, False),
            dict.fromkeys(there, is_over),
            {agent: {} for agent in there},
        )

    def _observations(self) -> dict[str, Any]:
        scale = np.float32(self._length - 1)
        return {
            agent: np.array([*places, *sorted(self._lamps)], np.float32) * 2 / scale - 1
            for agent, places in zip(
                self.possible_agents,
                (self._places, self._places[::-1]),
                strict=True,
            )
        }

    def render(self) -> np.ndarray:
        """uint8 [H, W, 3]: lamps are green, walkers white."""
        picture = np.full((1, self._length, 3), 40, np.uint8)
        picture[0, self._lamps] = (0, 160, 0)
        picture[0, self._places] = 255
        return picture.repeat(24, axis=0).repeat(24, axis=1)

    def close(self) -> None:
        """Ends the game; there is nothing to release."""

    @property
    def unwrapped(self) -> "MyProject":
        return self
