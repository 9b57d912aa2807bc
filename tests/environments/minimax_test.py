"""Minimax of depth 4 against boards whose best moves are known, and a plain search."""

import numpy as np
import pytest

from impala_mp.environments import connect, minimax


def _board(*rows):
    """Observation of the player of x, on six rows of seven columns."""
    cells = [["."] * 7] * (6 - len(rows)) + [list(row) for row in rows]
    board = np.array(cells)
    return np.stack([board == "x", board == "o"], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        (["xxx....", "ooo...."], [3]),  # wins rather than blocks
        ([".......", "ooo.x.x"], [3]),  # blocks
        (["o......", "o.x....", "o.xx..."], [0]),  # blocks a column
        (["x......", "xo.....", "xoo...."], [0]),
        (["...o...", "..ox...", ".oxx..x", "oxxo..x"], None),
        ([".......", "..oo..."], [1, 4]),  # three with two open ends loses
    ],
)
def test_wins_in_one_and_blocks(rows, best):
    found = minimax.best_moves(_board(*rows))
    if best is not None:
        assert sorted(found) == best
    assert minimax.play(_board(*rows), np.ones(7)) in found


def test_a_full_column_is_not_played():
    board = _board(*["x......", "o......"] * 3)
    assert 0 not in minimax.best_moves(board)


def _value(own, other, depth):
    """Plain negamax without pruning, on arrays."""
    if depth == 0:
        return 0
    values = [_moved(own, other, column, depth) for column in range(7)]
    values = [value for value in values if value is not None]
    return max(values, default=0)


def _moved(own, other, column, depth):
    rows = np.flatnonzero((own | other)[:, column] == 0)
    if not len(rows):
        return None
    mine = own.copy()
    mine[rows[-1], column] = 1
    if _wins(mine):
        return depth
    return -_value(other, mine, depth - 1)


def _wins(own):
    wide = np.zeros((12, 14), np.int64)
    wide[3:9, 3:10] = own
    for dr, dc in ((0, 1), (1, 0), (1, 1), (1, -1)):
        line = sum(np.roll(wide, (k * dr, k * dc), (0, 1)) for k in range(4))
        if (line == 4).any():
            return True
    return False


@pytest.mark.parametrize("seed", range(12))
def test_it_agrees_with_a_plain_search_after_random_moves(seed):
    rng, depth = np.random.default_rng(seed), 3
    game = connect.Connect(1)
    rows = game.reset(0)
    for _ in range(int(rng.integers(4, 30))):
        mask = rows.observation["action_mask"][0, 0]
        action = rng.choice(np.flatnonzero(mask))
        following = game.step(np.array([[action, action]]))
        if not following.acts.any():
            return  # over before the moves were made
        rows = following
    mover = int(np.flatnonzero(rows.acts[0])[0])
    seen = rows.observation["observation"][0, mover]
    own, other = seen[..., 0].astype(np.int64), seen[..., 1].astype(np.int64)
    values = {c: _moved(own, other, c, depth) for c in range(7)}
    best = max(value for value in values.values() if value is not None)
    expected = [c for c, value in values.items() if value == best]
    assert sorted(minimax.best_moves(seen, depth)) == expected
