"""E games of the same players, as arrays: the interface, and what plays them."""

import contextlib
import types as python_types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.environments import (
    bad_data,
    closing,
    copies,
    games,
    players,
    roster,
    spaces,
)

Deal = Callable[[Sequence[str], Sequence[Any]], tuple[roster.Share, ...]]


class Rows(NamedTuple):
    """One moment of E games of P players: arrays [E, P, ...].

    The next call may overwrite them. Of players that are not present nothing is read
    but `observation`, which must be finite.
    """

    observation: types.Nest  # of a Source: a list, [E, players of the policy, ...] each
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
    """E games in the layouts of `specs`, checked."""

    num_games: int
    players: tuple[str, ...]
    shares: tuple[roster.Share, ...]  # of the policies
    specs: tuple[specs.EnvironmentSpec, ...]  # of each policy's players
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

    def step(self, actions: Sequence[types.Nest]) -> Rows:
        """Moves by the actions [E, players of the policy, ...] of each agent.

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
        deal: Deal = roster.together,
    ) -> None:
        """Takes the id of the environment and its games; `deal` deals out the players.

        Raises:
          BadInput: a space is not supported.
        """
        self.unwrapped = self._game = game
        self.num_games, self.infos = game.num_games, dict[int, Any]()
        self.observation_spaces = [game.observation_space]
        self._view = players.View(game.observation_space, game.action_space, ignored)
        self.players = tuple(game.players)
        self.shares = deal(self.players, [None] * len(self.players))
        self._layouts = [
            players.Layout(
                name,
                _pick(self.players, share),
                [self._view] * len(share.players),
                self.num_games,
                shows_player,
            )
            for share in self.shares
        ]
        one = len(self.shares) == 1
        self._mine: list[Any] = [  # of each policy among the players
            slice(None) if one else list(share.players) for share in self.shares
        ]
        self.specs = tuple(layout.spec for layout in self._layouts)

    @property
    def num_outside(self) -> int:
        return self._view.interface.num_outside

    def reset(self, seeds: Sequence[int]) -> Rows:
        return self._checked(self._game.reset(seeds[0]))

    def step(self, actions: Sequence[types.Nest]) -> Rows:
        joined = actions[0]
        if len(actions) > 1:
            joined = nest.map_structure(self._join, *actions)
        return self._checked(self._game.step(self._view.interface.act(joined)))

    def _join(self, *parts: np.ndarray) -> np.ndarray:
        """Returns [E, P, ...] of the parts of each policy."""
        whole = np.empty(
            (self.num_games, len(self.players), *parts[0].shape[2:]), parts[0].dtype
        )
        for mine, part in zip(self._mine, parts, strict=True):
            whole[:, mine] = part
        return whole

    def _checked(self, rows: Rows) -> Rows:
        own, mask = self._view.split(rows.observation)
        shape = rows.present.shape
        flat = nest.map_structure(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), own)
        seen = self._view.interface.observe(flat, rows.present.size)
        for name in ("terminated", "truncated", "acts"):
            each = getattr(rows, name)
            if each.dtype != np.bool_ or each.shape != shape:
                raise bad_data.BadData(
                    "bad_rewards",
                    f"{name} is {each.dtype} {list(each.shape)}. Return bool {shape}",
                )
        for mine, layout in zip(self._mine, self._layouts, strict=True):
            nest.map_structure(
                lambda row, leaf, mine=mine: np.copyto(
                    row, leaf.reshape(*shape, *leaf.shape[1:])[:, mine]
                ),
                layout.own,
                seen,
            )
            if layout.mask is not None:
                np.copyto(layout.mask, mask[:, mine])
                # Where nothing is chosen; after a truncation, its values matter still.
                cut = rows.truncated[:, mine] & layout.mask.any(-1)
                layout.mask[~(rows.acts[:, mine] | cut)] = True
        return rows._replace(observation=[layout.rows for layout in self._layouts])

    def state(self) -> python_types.SimpleNamespace:
        return python_types.SimpleNamespace(game=self._game)

    def render(self) -> Any:
        return self._game.render()  # type: ignore[attr-defined]

    def close(self) -> None:
        close = getattr(self._game, "close", None)
        if close is not None:
            close()


def _pick(values: Sequence[Any], share: roster.Share) -> tuple[Any, ...]:
    return tuple(values[number] for number in share.players)


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
        deal: Deal = roster.together,
    ) -> None:
        """Takes the id of the environment and E copies; `deal` deals out the players.

        Raises:
          BadInput: a space is not supported, the players of a policy do not fit
            together, or the environment has no state to show.
        """
        self._copies, first = copies_, copies_[0]
        self.num_games, self.players = len(copies_), first.players
        self.unwrapped = first.env
        each = [first.spaces(player) for player in self.players]
        self.observation_spaces = [observation for observation, _ in each]
        self._views = [players.View(*pair, ignored) for pair in each]
        self.shares = deal(self.players, each)
        state = _state_spec(name, first) if shows_state else None
        self._layouts = [
            players.Layout(
                name,
                _pick(self.players, share),
                _pick(self._views, share),
                self.num_games,
                shows_player,
                state,
            )
            for share in self.shares
        ]
        self.specs = tuple(layout.spec for layout in self._layouts)
        self._places = {  # of each player: its policy, and its place there
            number: (self._layouts[k], place)
            for k, share in enumerate(self.shares)
            for place, number in enumerate(share.players)
        }
        self._corners = [
            layout.corner(place, self._views[p])
            for p, (layout, place) in sorted(self._places.items())
        ]
        self._put = [
            copies.Rows(view.interface.observation, corner).put
            for view, corner in zip(self._views, self._corners, strict=True)
        ]
        shape = self.num_games, len(self.players)
        self._acts, self._present = np.zeros(shape, bool), np.zeros(shape, bool)
        self.infos: dict[int, Any] = {}

    @property
    def num_outside(self) -> int:
        return sum(view.interface.num_outside for view in self._views)

    def reset(self, seeds: Sequence[int]) -> Rows:
        return self._rows(
            [game.reset(seed) for game, seed in zip(self._copies, seeds, strict=True)]
        )

    def step(self, actions: Sequence[types.Nest]) -> Rows:
        each: dict[int, types.Nest] = {}
        for share, own in zip(self.shares, actions, strict=True):
            for place, number in enumerate(share.players):
                each[number] = self._views[number].interface.act(
                    nest.map_structure(lambda leaf, i=place: leaf[:, i], own)
                )
        ordered = [each[number] for number in range(len(self.players))]
        return self._rows(
            [self._step(i, game, ordered) for i, game in enumerate(self._copies)]
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
                    zip(self.players, actions, strict=True)
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
            reward.append([moment.rewards.get(p, 0.0) for p in self.players])
            terminated.append([moment.terminated.get(p, False) for p in self.players])
            truncated.append([moment.truncated.get(p, False) for p in self.players])
        for p, (view, corner) in enumerate(
            zip(self._views, self._corners, strict=True)
        ):
            there = self._present[:, p]
            rows = corner
            if not there.all():
                rows = nest.map_structure(lambda leaf, there=there: leaf[there], corner)
            view.interface.observe(rows, int(there.sum()))
        shape, count = self._present.shape, self._present.size
        return Rows(
            [layout.rows for layout in self._layouts],
            bad_data.numbers(_flat(reward), count).reshape(shape),
            bad_data.ends("terminated", _flat(terminated), count).reshape(shape),
            bad_data.ends("truncated", _flat(truncated), count).reshape(shape),
            self._acts,
            self._present,
        )

    def _write(self, i: int, moment: games.Moment) -> None:
        """Writes what each player sees, and what it may do."""
        for p, (name, view) in enumerate(zip(self.players, self._views, strict=True)):
            present, acts = name in moment.observations, name in moment.acting
            mask = None
            if present:
                observation, mask = view.split(moment.observations[name])
                self._put[p](i, observation)
            cut = bool(moment.truncated.get(name, False))
            ends = cut or bool(moment.terminated.get(name, False))
            self._present[i, p] = present
            self._acts[i, p] = present and acts and not ends
            if ends:
                self.infos[i * len(self.players) + p] = moment.infos.get(name, {})
            layout, place = self._places[p]
            if layout.mask is not None:
                allowed = layout.mask[i, place]
                allowed[:] = not (self._acts[i, p] or cut)
                if self._acts[i, p] or cut:  # whose values matter
                    if mask is None or (cut and not np.any(mask)):
                        mask = True
                    allowed[: view.interface.action.num_actions] = mask
        if self._layouts[0].state is not None:
            state = self._copies[i].env.state()
            for layout in self._layouts:
                layout.state[i] = state  # type: ignore[index]

    def state(self) -> python_types.SimpleNamespace:
        own = tuple(layout.own for layout in self._layouts)
        rows = {f"rows_{i}": leaf for i, leaf in enumerate(nest.flatten(own))}
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
