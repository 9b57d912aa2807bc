"""Connect: two players, k in a row on a board; tic-tac-toe and connect four."""

import gymnasium
import numpy as np

from impala_mp import errors
from impala_mp.environments import players as players_lib, vector_games

_BITS = 64
_OPENINGS = 4096  # positions to draw from
_COLOURS = np.array(((32, 64, 160), (250, 220, 60), (220, 60, 60)), np.uint8)


class Connect:
    """Boards of `rows` x `columns` cells, on which `length` in a row win.

    With `gravity` an action is a column, and the piece falls to its lowest free cell
    (connect four: 6, 7, 4). Without, it is a cell, row by row from the top (tic-tac-
    toe: 3, 3, 3). player_0 moves first. Rewards are 1 and -1 at a win and 0 at a draw.
    A forbidden action loses. With an `opening` the policies take over after up to so
    many random moves, none of which ends the game.

    Observations uint8 [rows, columns, 2]: own pieces and those of the other, the bottom
    row last. The mask has the actions that are allowed.
    """

    players = ("player_0", "player_1")
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        num_envs: int,
        rows: int = 6,
        columns: int = 7,
        length: int = 4,
        gravity: bool = True,
        opening: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """Makes `num_envs` games.

        Raises:
          BadInput: there is no such board or opening.
        """
        _check(rows, columns, length, opening)
        self.num_games, self.render_mode = num_envs, render_mode
        self._opening = opening
        self._shape, self._length, self._gravity = (rows, columns), length, gravity
        # Bit c * (rows + 1) + r is row r from the bottom of column c. The row above the
        # board stays empty, so that no line goes from a column to the next.
        height = rows + 1
        self._lines = [np.uint64(n) for n in (1, height, height - 1, height + 1)]
        places = np.array(
            [[c * height + rows - 1 - r for c in range(columns)] for r in range(rows)]
        )
        self._shifts = places.astype(np.uint64).reshape(-1)
        self._cells = np.uint64(1) << self._shifts
        self._bottoms = np.uint64(1) << (np.arange(columns) * height).astype(np.uint64)
        self._tops = self._bottoms << np.uint64(rows - 1)
        self._column = (np.uint64(1) << np.uint64(rows)) - np.uint64(1)  # column 0
        self._full = np.bitwise_or.reduce(self._cells)
        self.num_actions = columns if gravity else rows * columns
        self.observation_space = gymnasium.spaces.Dict(
            {
                players_lib.OBSERVATION: gymnasium.spaces.Box(
                    0, 1, (rows, columns, 2), np.uint8
                ),
                players_lib.MASK: gymnasium.spaces.MultiBinary(self.num_actions),
            }
        )
        self.action_space = gymnasium.spaces.Discrete(self.num_actions)
        self._games = np.arange(num_envs)
        self._start(0)

    def _start(self, seed: int) -> None:
        count = self.num_games
        self._random = np.random.default_rng(seed)
        # Where games may begin: boards of the mover and the other, and whose turn.
        self._first = np.zeros((2, 1), np.uint64), np.zeros(1, np.int64)
        if self._opening:
            self._first = self._openings()
        self._boards = np.zeros((2, count), np.uint64)  # the mover's, and the other's
        self._turn = np.zeros(count, np.int64)
        self._over = np.zeros(count, bool)
        self._begin(self._games)

    def _openings(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions after random moves: uint64 [2, N] and int64 [N]."""
        boards = np.zeros((2, _OPENINGS), np.uint64)
        turn = np.zeros(_OPENINGS, np.int64)
        left = self._random.integers(self._opening + 1, size=_OPENINGS)
        for move in range(self._opening):
            own, other = boards
            order = self._random.random((_OPENINGS, self.num_actions))
            action = (order * self._free(own | other)).argmax(1)
            moved = own | self._piece(own | other, action)
            ends = self._has_line(moved) | ((moved | other) == self._full)
            goes_on = (move < left) & ~ends
            boards = np.where(goes_on, np.stack([other, moved]), boards)
            turn = np.where(goes_on, 1 - turn, turn)
        return boards, turn

    def _begin(self, games: np.ndarray) -> None:
        """Begins the games with these indices."""
        boards, turn = self._first
        drawn = self._random.integers(len(turn), size=len(games))
        self._boards[:, games], self._turn[games] = boards[:, drawn], turn[drawn]

    def reset(self, seed: int) -> vector_games.Rows:
        """Starts all games; the openings alone are random."""
        self._start(seed)
        return self._rows(np.zeros((self.num_games, 2)))

    def step(self, actions: np.ndarray) -> vector_games.Rows:
        """Moves in each game by the mover's action; `actions` is int64 [E, 2]."""
        action = actions[self._games, self._turn]
        over = self._over
        own, other = self._boards
        taken = own | other
        piece = self._piece(taken, action)
        moved = own | piece
        wins, forbidden = self._has_line(moved), piece == 0
        value = wins.astype(np.float64)
        value[forbidden] = -1.0
        value[over] = 0.0
        self._over = (wins | forbidden | ((moved | other) == self._full)) & ~over
        reward = np.empty((self.num_games, 2))
        reward[self._games, self._turn] = value
        reward[self._games, 1 - self._turn] = 0.0 - value  # no -0
        self._boards, self._turn = np.stack([other, moved]), 1 - self._turn
        self._begin(np.flatnonzero(over))
        return self._rows(reward)

    def _piece(self, taken: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Returns the bit that each action sets; 0 if it is forbidden."""
        if not self._gravity:
            return self._cells[action] & ~taken
        lowest = (taken + self._bottoms[action]) & ~taken
        return lowest & (self._bottoms[action] * self._column) & self._full

    def _free(self, taken: np.ndarray) -> np.ndarray:
        """Returns which actions are allowed: bool [E, A]."""
        tops: np.ndarray = self._tops if self._gravity else self._cells
        free: np.ndarray = (taken[:, None] & tops) == 0
        return free

    def _has_line(self, boards: np.ndarray) -> np.ndarray:
        """Returns which of the boards have `length` in a row."""
        found = np.zeros(boards.shape, bool)
        for shift in self._lines:
            line = boards
            for _ in range(self._length - 1):
                line = boards & (line >> shift)
            found |= line != 0
        return found

    def _rows(self, reward: np.ndarray) -> vector_games.Rows:
        rows, columns = self._shape
        mover, other = self._boards
        bits = self._boards[..., None] >> self._shifts & np.uint64(1)
        planes = bits.astype(np.uint8)  # [2, E, cells]
        seen = np.empty((self.num_games, 2, rows * columns, 2), np.uint8)
        seen[self._games, self._turn] = np.moveaxis(planes, 0, -1)
        seen[self._games, 1 - self._turn] = np.moveaxis(planes[::-1], 0, -1)
        free = self._free(mover | other)
        acts = np.zeros((self.num_games, 2), bool)
        acts[self._games, self._turn] = ~self._over
        over = np.repeat(self._over[:, None], 2, 1)
        return vector_games.Rows(
            observation={
                players_lib.OBSERVATION: seen.reshape(-1, 2, rows, columns, 2),
                players_lib.MASK: np.repeat(free[:, None], 2, 1),
            },
            reward=reward,
            terminated=over,
            truncated=np.zeros_like(over),
            acts=acts,
            present=np.ones_like(over),
        )

    def render(self) -> np.ndarray | None:
        """Draws game 0, player_0 in yellow: uint8 [H, W, 3]."""
        if self.render_mode is None:
            return None
        boards = self._boards[:, 0] if self._turn[0] == 0 else self._boards[::-1, 0]
        bits = (boards[:, None] >> self._shifts & np.uint64(1)).astype(np.int64)
        cells = (bits[0] + 2 * bits[1]).reshape(self._shape)
        large = cells.repeat(24, axis=0).repeat(24, axis=1)
        edge = np.arange(24) % 24
        inside = ((edge > 1) & (edge < 22)).astype(np.uint8)
        mask = np.tile(np.outer(inside, inside), self._shape)
        picture: np.ndarray = _COLOURS[large] * mask[..., None]
        return picture


def _check(rows: int, columns: int, length: int, opening: int) -> None:
    """Refuses boards that are too small or too large, and openings that fill them.

    Raises:
      BadInput: with the values.
    """
    whole = all(type(each) is int for each in (rows, columns, length))
    if not whole or min(rows, columns) < 1 or not 1 < length <= max(rows, columns):
        raise errors.BadInput(
            f"Connect cannot use rows={rows!r}, columns={columns!r} and"
            f" length={length!r}. It needs whole numbers, and a length from 2 to"
            " the longer side. Set config.environment.kwargs."
        )
    if columns * (rows + 1) > _BITS:
        raise errors.BadInput(
            f"Connect cannot use rows={rows} and columns={columns}: columns * (rows"
            f" + 1) must be at most {_BITS}. Set config.environment.kwargs."
        )
    most = rows * columns - 1
    if type(opening) is not int or not 0 <= opening <= most:
        raise errors.BadInput(
            f"Connect cannot use opening={opening!r}. It must be a whole number of"
            f" moves from 0 to {most}. Set config.environment.kwargs.opening."
        )
