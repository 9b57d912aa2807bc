"""E games of the same players, as arrays: the interface, and copies behind it."""

import contextlib
import types as python_types
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.environments import bad_data, closing, copies, games, players, spaces


class Rows(NamedTuple):
    """One moment of E games of P players: arrays [E, P, ...].

    The next call may overwrite them. Of players that are not present nothing is read
    but `observation`, which must be finite.
    """

    observation: types.Nest
    reward: np.ndarray  # of the move that led here
    terminated: np.ndarray  # bool, of the episode of each player
    truncated: np.ndarray  # bool
    acts: np.ndarray  # bool, the next step reads the action
    present: np.ndarray  # bool, in the game, the last moment of each player included


class VectorGame(Protocol):
    """E games that one object plays; all players have the same spaces.

    A Dict of "observation" and "action_mask" has the actions that are allowed, as in
    PettingZoo. A game in which no player acts is over. Its next step starts another
    one, and ignores the actions.
    """

    num_games: int
    players: tuple[str, ...]
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def reset(self, seed: int) -> Rows:
        """Starts all games."""

    def step(self, actions: types.Nest) -> Rows:
        """Moves by actions [E, P, ...], as the action space has them."""


class Source(Protocol):
    """E games in the layout of `spec`, checked."""

    num_games: int
    spec: specs.EnvironmentSpec
    unwrapped: Any  # what plays the games, or the first of them
    observation_spaces: list[gymnasium.Space[Any]]  # of the players
    infos: dict[int, Any]  # the last infos of episodes that have just ended, by column

    @property
    def num_outside(self) -> int:
        """Number of observations so far that were outside their space and used."""

    def reset(self, seeds: Sequence[int]) -> Rows:
        """Starts all games, with a seed each.

        Raises:
          BadData: an observation does not fit the space.
        """

    def step(self, actions: types.Nest) -> Rows:
        """Moves by the agent's actions [E, P, ...].

        Raises:
          BadData: an observation does not fit the space, or a reward is no number.
        """

    def state(self) -> python_types.SimpleNamespace:
        """Returns the objects and arrays that the next step depends on."""

    def render(self) -> Any:
        """Draws game 0."""

    def close(self) -> None:
        """Closes every game; errors harm nothing."""


class Native:
    """A VectorGame as it is."""

    def __init__(
        self,
        name: str,
        game: VectorGame,
        ignored: Sequence[str] = (),
        shows_player: bool = False,
    ) -> None:
        """Takes the id of the environment and its games.

        Raises:
          BadInput: a space is not supported.
        """
        self.unwrapped = self._game = game
        self.num_games, self.infos = game.num_games, dict[int, Any]()
        self.observation_spaces = [game.observation_space]
        self._view = players.View(game.observation_space, game.action_space, ignored)
        ids = tuple(game.players)
        self._layout = players.Layout(
            name, ids, [self._view] * len(ids), game.num_games, shows_player
        )
        self.spec = self._layout.spec

    @property
    def num_outside(self) -> int:
        return self._view.interface.num_outside

    def reset(self, seeds: Sequence[int]) -> Rows:
        return self._checked(self._game.reset(seeds[0]))

    def step(self, actions: types.Nest) -> Rows:
        return self._checked(self._game.step(self._view.interface.act(actions)))

    def _checked(self, rows: Rows) -> Rows:
        own, mask = self._view.split(rows.observation)
        shape = rows.present.shape
        flat = nest.map_structure(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), own)
        seen = self._view.interface.observe(flat)
        nest.map_structure(
            lambda row, leaf: np.copyto(row, leaf.reshape(row.shape)),
            self._layout.own,
            seen,
        )
        if self._layout.mask is not None:
            np.copyto(self._layout.mask, mask)
            self._layout.mask[~rows.acts] = True
        for name in ("terminated", "truncated", "acts"):
            each = getattr(rows, name)
            if each.dtype != np.bool_ or each.shape != shape:
                raise bad_data.BadData(
                    "bad_rewards",
                    f"{name} is {each.dtype} {list(each.shape)}. Return bool {shape}",
                )
        return rows._replace(observation=self._layout.rows)

    def state(self) -> python_types.SimpleNamespace:
        return python_types.SimpleNamespace(game=self._game)

    def render(self) -> Any:
        return self._game.render()  # type: ignore[attr-defined]

    def close(self) -> None:
        close = getattr(self._game, "close", None)
        if close is not None:
            close()


class GameCopies:
    """E copies of a game, stepped one after another.

    A player that is gone keeps its last observation: zeros would enter the statistics
    that normalise.
    """

    def __init__(
        self,
        name: str,
        copies_: Sequence[games.Game],
        ignored: Sequence[str] = (),
        shows_player: bool = False,
        shows_state: bool = False,
    ) -> None:
        """Takes the id of the environment and E copies.

        Raises:
          BadInput: a space is not supported, the players do not fit together, or the
            environment has no state to show.
        """
        self._copies, first = copies_, copies_[0]
        self.num_games, self._players = len(copies_), first.players
        self.unwrapped = first.env
        each = [first.spaces(player) for player in self._players]
        self.observation_spaces = [observation for observation, _ in each]
        self._views = [players.View(*pair, ignored) for pair in each]
        state = _state_spec(name, first) if shows_state else None
        self._layout = layout = players.Layout(
            name, self._players, self._views, self.num_games, shows_player, state
        )
        self.spec = layout.spec
        self._corners = [layout.corner(p, view) for p, view in enumerate(self._views)]
        self._put = [
            copies.Rows(view.interface.observation, corner).put
            for view, corner in zip(self._views, self._corners, strict=True)
        ]
        shape = self.num_games, len(self._players)
        self._acts, self._present = np.zeros(shape, bool), np.zeros(shape, bool)
        self.infos: dict[int, Any] = {}

    @property
    def num_outside(self) -> int:
        return sum(view.interface.num_outside for view in self._views)

    def reset(self, seeds: Sequence[int]) -> Rows:
        return self._rows(
            [game.reset(seed) for game, seed in zip(self._copies, seeds, strict=True)]
        )

    def step(self, actions: types.Nest) -> Rows:
        each = [
            view.interface.act(
                nest.map_structure(lambda leaf, p=p: leaf[:, p], actions)
            )
            for p, view in enumerate(self._views)
        ]
        return self._rows(
            [self._step(i, game, each) for i, game in enumerate(self._copies)]
        )

    def _step(
        self, i: int, game: games.Game, actions: list[types.Nest]
    ) -> games.Moment:
        acts = self._acts[i]
        if not acts.any():
            return game.reset(None)
        return game.step(
            {
                name: nest.map_structure(lambda leaf: leaf[i], action)
                for p, (name, action) in enumerate(
                    zip(self._players, actions, strict=True)
                )
                if acts[p]
            }
        )

    def _rows(self, moments: Sequence[games.Moment]) -> Rows:
        """Writes the moments of all games into the arrays."""
        self.infos = {}
        reward: list[list[Any]] = []
        terminated: list[list[Any]] = []
        truncated: list[list[Any]] = []
        for i, moment in enumerate(moments):
            self._write(i, moment)
            reward.append([moment.rewards.get(p, 0.0) for p in self._players])
            terminated.append([moment.terminated.get(p, False) for p in self._players])
            truncated.append([moment.truncated.get(p, False) for p in self._players])
        for p, (view, corner) in enumerate(
            zip(self._views, self._corners, strict=True)
        ):
            there = self._present[:, p]
            rows = corner
            if not there.all():
                rows = nest.map_structure(lambda leaf, there=there: leaf[there], corner)
            view.interface.observe(rows)
        shape, count = self._present.shape, self._present.size
        return Rows(
            self._layout.rows,
            bad_data.numbers(_flat(reward), count).reshape(shape),
            bad_data.ends("terminated", _flat(terminated), count).reshape(shape),
            bad_data.ends("truncated", _flat(truncated), count).reshape(shape),
            self._acts,
            self._present,
        )

    def _write(self, i: int, moment: games.Moment) -> None:
        """Writes what each player sees, and what it may do."""
        layout = self._layout
        for p, (name, view) in enumerate(zip(self._players, self._views, strict=True)):
            present, acts = name in moment.observations, name in moment.acting
            if present:
                observation, mask = view.split(moment.observations[name])
                self._put[p](i, observation)
            self._present[i, p], self._acts[i, p] = present, present and acts
            if moment.terminated.get(name, False) or moment.truncated.get(name, False):
                self._acts[i, p] = False
                self.infos[i * len(self._players) + p] = moment.infos.get(name, {})
            if layout.mask is not None:
                allowed = layout.mask[i, p]
                allowed[:] = not self._acts[i, p]
                if self._acts[i, p]:
                    size = view.interface.action.num_actions
                    allowed[:size] = True if mask is None else mask
        if layout.state is not None:
            layout.state[i] = self._copies[i].env.state()

    def state(self) -> python_types.SimpleNamespace:
        rows = {
            f"rows_{i}": leaf for i, leaf in enumerate(nest.flatten(self._layout.own))
        }
        return python_types.SimpleNamespace(
            games=list(self._copies), acts=self._acts, present=self._present, **rows
        )

    def render(self) -> Any:
        return self.unwrapped.render()

    def close(self) -> None:
        closing.close_each([game.env for game in self._copies])


def _flat(values: list[list[Any]]) -> list[Any]:
    return [each for row in values for each in row]


def _state_spec(name: str, game: games.Game) -> specs.ArraySpec:
    """Returns the layout of the game's state.

    Raises:
      BadInput: there is none, or it is no array of numbers.
    """
    state = None
    if hasattr(game.env, "state"):
        game.reset(0)
        with contextlib.suppress(NotImplementedError):
            state = np.asarray(game.env.state())
    if state is None or state.dtype.kind not in "biuf":
        found = "none" if state is None else state.dtype
        raise errors.BadInput(
            "environment.shows_state needs state(), an array of numbers, and"
            f" environment.id ({name!r}) has {found}."
            " Set config.environment.shows_state=False."
        )
    box = gymnasium.spaces.Box(-np.inf, np.inf, state.shape, np.float32)
    if state.dtype.kind in "biu":
        limits = (0, 1) if state.dtype.kind == "b" else np.iinfo(state.dtype)
        low, high = limits if isinstance(limits, tuple) else (limits.min, limits.max)
        box = gymnasium.spaces.Box(low, high, state.shape, state.dtype)
    spec: specs.ArraySpec = spaces.observation_spec(box)
    return spec
