"""Minimax of depth 4 for connect four, as an opponent of a run.

    impala-eval DIR --against=impala_mp.environments.minimax:play

It looks four moves ahead, values what lies beyond at 0, and draws among the best moves.
It takes a win as early and a loss as late as it can.
"""

import random

import numpy as np

DEPTH = 4  # moves of both players
_LENGTH = 4  # in a row win


class _Board:
    """Bit c * (rows + 1) + r is row r from the bottom of column c."""

    def __init__(self, rows: int, columns: int) -> None:
        height = rows + 1
        self._shifts = (1, height, height - 1, height + 1)
        self._bottoms = [1 << c * height for c in range(columns)]
        self._within = [((1 << rows) - 1) << c * height for c in range(columns)]
        middle = 0.5 * (columns - 1)
        self._order = sorted(range(columns), key=lambda c: abs(c - middle))

    def bits(self, plane: np.ndarray) -> int:
        """Returns the pieces in [rows, columns], the bottom row last."""
        rows, _ = plane.shape
        cells = np.argwhere(plane).tolist()
        return sum(1 << c * (rows + 1) + rows - 1 - r for r, c in cells)

    def moves(self, taken: int) -> list[tuple[int, int]]:
        """Returns the columns that are not full, and the piece that each adds."""
        found = (
            (column, (taken + self._bottoms[column]) & self._within[column] & ~taken)
            for column in self._order
        )
        return [(column, piece) for column, piece in found if piece]

    def has_line(self, pieces: int) -> bool:
        for shift in self._shifts:
            line = pieces
            for _ in range(_LENGTH - 1):
                line = pieces & (line >> shift)
            if line:
                return True
        return False

    def value(self, own: int, other: int, depth: int, low: int, high: int) -> int:
        """Returns the mover's value, exact between `low` and `high`.

        A win is worth 1 and the depth that is left; a loss the negative.
        """
        if depth == 0:
            return 0
        moves = self.moves(own | other)
        for _, piece in moves:
            if self.has_line(own | piece):
                return depth
        best = -depth if moves else 0
        for _, piece in moves:
            best = max(best, -self.value(other, own | piece, depth - 1, -high, -low))
            low = max(low, best)
            if low >= high:
                break
        return best

    def best(self, own: int, other: int, depth: int) -> list[int]:
        """Returns the columns of the highest value."""
        found: list[int] = []
        best = -depth
        for column, piece in self.moves(own | other):
            if self.has_line(own | piece):
                value = depth
            else:
                # Exact also at the best value so far, so that equal moves are seen.
                moved = own | piece
                value = -self.value(other, moved, depth - 1, -depth, -best + 1)
            if value > best or not found:
                best, found = value, [column]
            elif value == best:
                found.append(column)
        return found


def best_moves(observation: np.ndarray, depth: int = DEPTH) -> list[int]:
    """Returns the best columns for the player that sees [rows, columns, 2]."""
    rows, columns, _ = observation.shape
    board = _Board(rows, columns)
    own, other = (board.bits(observation[..., i]) for i in (0, 1))
    return board.best(own, other, depth)


def play(observation: np.ndarray, mask: np.ndarray) -> int:
    """Returns one of the best columns, drawn by Python's global generator."""
    return random.choice(best_moves(observation))
