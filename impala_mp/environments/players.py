"""Observations and actions of the players of a game, in one layout for all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from impala_mp import errors, nest, specs, types
from impala_mp.environments import bad_data, joint, spaces

MASK = "action_mask"  # key of PettingZoo's masks
OBSERVATION, ALLOWED, PLAYER, STATE = "observation", "allowed", "player", "state"


class View:
    """Observations and actions of one player, without the mask under "action_mask"."""

    def __init__(
        self,
        observation: gymnasium.Space[Any],
        action: gymnasium.Space[Any],
        ignored: Sequence[str] = (),
    ) -> None:
        """Takes the player's spaces.

        Raises:
          BadInput: one is not supported, or the mask does not fit the actions.
        """
        self.mask_size, self._only = 0, ""
        parts = getattr(observation, "spaces", None)
        if isinstance(parts, Mapping) and MASK in parts and len(parts) > 1:
            self.mask_size = int(np.prod(parts[MASK].shape))
            rest = {name: part for name, part in parts.items() if name != MASK}
            self._only = next(iter(rest)) if len(rest) == 1 else ""
            if MASK in ignored:
                raise errors.BadInput(
                    f"environment.ignored has {MASK!r}, which is no input of the"
                    " network. Take it out of config.environment.ignored."
                )
            observation = gymnasium.spaces.Dict(rest)
            if self._only:
                observation = rest[self._only]
        self.interface = spaces.Interface(observation, action, ignored, self._only)
        spec = self.interface.action
        num_actions = spec.num_actions if isinstance(spec, specs.DiscreteSpec) else 0
        if self.mask_size and self.mask_size != num_actions:
            raise errors.BadInput(
                f"{MASK!r} has {self.mask_size} elements for the actions {action}. It"
                " needs one element per action of a Discrete space. Correct the mask in"
                " the environment."
            )

    def split(self, observation: Any) -> tuple[Any, Any]:
        """Returns the observation and its mask; None without one.

        Raises:
          BadData: it is not built as its space.
        """
        if not self.mask_size:
            return observation, None
        try:
            mask = observation[MASK]
            if self._only:
                return observation[self._only], mask
            return {k: v for k, v in observation.items() if k != MASK}, mask
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise bad_data.misbuilt(error) from error


class Layout:
    """Observations [E, P, ...] of the players of E games.

    They are the players' own if they are alike and nothing is added. Else they are a
    dict of OBSERVATION, padded with 0, and as needed of PLAYER, the player's number,
    of STATE, the game's, and of ALLOWED, the actions that are allowed.
    """

    def __init__(
        self,
        name: str,
        players: tuple[str, ...],
        views: Sequence[View],
        num_games: int,
        shows_player: bool = False,
        state: specs.ArraySpec | None = None,
    ) -> None:
        """Takes the id of the environment, and a view per player.

        Raises:
          BadInput: the players cannot be padded to one layout.
        """
        parts = [view.interface for view in views]
        observation = _fit(name, "observations", joint.observation, parts)
        action = _fit(name, "actions", joint.action, parts)
        added: dict[str, Any] = {}
        shows_player = shows_player and len(players) > 1
        differ = any(part.action != action for part in parts)
        if differ or any(view.mask_size for view in views):
            added[ALLOWED] = specs.array_spec((action.num_actions,), np.bool_)
        if shows_player:
            numbers = (len(players),)
            added[PLAYER] = specs.CategoriesSpec((), np.dtype(np.int64), numbers, (0,))
        if state is not None:
            added[STATE] = state
        self.spec = specs.EnvironmentSpec(
            {OBSERVATION: observation, **added} if added else observation,
            action,
            frames_per_step=1,
            action_mask=ALLOWED if ALLOWED in added else "",
            players=players,
            waits=True,
            privileged=STATE if STATE in added else "",
        )
        shape = num_games, len(players)
        self.rows: types.Nest = nest.map_structure(
            lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype),
            self.spec.observation,
        )
        if shows_player:
            self.rows[PLAYER][:] = np.arange(len(players))
        self.own = self.rows[OBSERVATION] if added else self.rows
        self.mask: np.ndarray | None = self.rows[ALLOWED] if ALLOWED in added else None
        self.state: np.ndarray | None = self.rows[STATE] if STATE in added else None

    def corner(self, player: int, view: View) -> types.Nest:
        """Returns the observations [E, ...] of a player, without the padding."""
        rows = nest.map_structure(lambda leaf: leaf[:, player], self.own)
        return joint.corners(rows, view.interface.observation)


def _fit(
    name: str,
    what: str,
    joined: Callable[[list[Any]], Any],
    parts: Sequence[spaces.Interface],
) -> Any:
    each = [getattr(part, what.removesuffix("s")) for part in parts]
    for other in each[1:]:
        try:
            joined([each[0], other])
        except ValueError as error:
            raise errors.BadInput(
                f"environment.id ({name!r}) has players that differ in {what}"
                f" ({each[0]} and {other}). They share one policy, so these must fit"
                " into one layout: the same dtype, as many axes, and Discrete actions."
                " Wrap the environment so that they do."
            ) from error
    return joined(each)
