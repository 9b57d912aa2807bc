"""Connect four: its network sees the lines and threats of the board."""

import numpy as np
import pytest
import torch

from experiments import connect as experiment
from impala_mp import errors, nest
from impala_mp.environments import factory
from impala_mp.networks import agent

_WAYS = ((0, 1), (1, 0), (1, 1), (1, -1))


@pytest.fixture
def made():
    """The agent of connect four, and boards after random moves."""
    config = experiment.get_config("four")
    config.environment.kwargs.opening = 30
    environment = factory.make(config.environment, 60)
    torch.manual_seed(0)
    rows = environment.reset(range(60))
    return agent.make(config, environment.spec), nest.map_structure(
        torch.from_numpy, rows
    )


def _wins(pieces, row, column):
    """Whether a piece there makes four in a row."""
    longest = 0
    for down, right in _WAYS:
        run = 1
        for sign in (1, -1):
            r, c = row + sign * down, column + sign * right
            while 0 <= r < 6 and 0 <= c < 7 and pieces[r, c]:
                run, r, c = run + 1, r + sign * down, c + sign * right
        longest = max(longest, run)
    return longest >= 4


def _threats(board, player):
    """Cells of the player's threats: all, those to play now, and one piece later."""
    taken = board.any(-1)
    found = np.zeros((3, 6, 7))
    for row, column in np.argwhere(~taken):
        if _wins(board[..., player], row, column):
            below = int((~taken[:, column]).sum()) - 1 - row
            found[0, row, column] = 1
            if below < 2:
                found[1 + below, row, column] = 1
    return found.reshape(3, -1)


def test_threats_equal_those_that_a_search_finds(made):
    policy, rows = made
    boards = rows.observation["observation"]
    _, *threats = policy.network.torso.planes(boards)[:4]
    expected = [
        [_threats(board, player) for player in range(2)]
        for board in boards.numpy().astype(bool)
    ]
    expected = np.moveaxis(np.array(expected), 2, 0)  # [3, B, player, cells]
    np.testing.assert_array_equal(torch.stack(threats).numpy(), expected)
    assert expected.sum((1, 2, 3)).min() >= 5


def test_open_lines_equal_a_count(made):
    policy, rows = made
    boards = rows.observation["observation"]
    *_, one, two, three = policy.network.torso.planes(boards)
    for board, counts in zip(
        boards.numpy(), (one + 2 * two + 3 * three).numpy(), strict=True
    ):
        expected = []
        for row, column in np.ndindex(6, 7):
            for down, right in _WAYS:
                cells = [(row + i * down, column + i * right) for i in range(4)]
                if all(r < 6 and 0 <= c < 7 for r, c in cells):
                    own, other = np.sum([board[cell] for cell in cells], 0)
                    expected.append((own * (other == 0), other * (own == 0)))
        np.testing.assert_array_equal(counts, np.transpose(expected))


def test_a_board_without_lines_is_refused_with_a_sentence():
    config = experiment.get_config("four")
    config.environment.kwargs.update(rows=3, columns=3, length=3, opening=0)
    spec = factory.make(config.environment, 1).spec
    with pytest.raises(errors.BadInput, match="3x3 has no line of 4 cells"):
        agent.make(config, spec)


def test_it_acts_where_it_may(made):
    policy, rows = made
    state = policy.initial_state(60)
    with torch.inference_mode():
        output, _ = policy.step(rows, state, epsilon=0.5)
    allowed = rows.observation["allowed"].numpy()
    assert allowed[np.arange(60), output.action.numpy()].all()
