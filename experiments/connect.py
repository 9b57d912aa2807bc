"""Connect: two players of one policy learn against each other.

tictactoe ends with a policy against which the best answer gains nothing, in 60 s on 2
shared x86 cores: python tools/best_response.py DIR. tictactoe-pettingzoo is the same
through PettingZoo's environment. four is connect four with a league: in half of the
games a snapshot of the policy plays the other side. Run it from the repository's root,
where its network is found by name. To compare it with others:

    impala-eval DIR --against=random
    impala-eval DIR --against=impala_mp.environments.minimax:play
"""

import itertools

import torch
from torch import nn

from impala_mp import config as config_lib, errors, nest
from impala_mp.networks import initialisers

ENVIRONMENT = "Connect"

_HERE = config_lib.module_of(__file__)


def get_config(game="tictactoe"):
    game = config_lib.one_of(game, ("tictactoe", "tictactoe-pettingzoo", "four"))
    config = config_lib.get_impala_config()
    config.loss.reduction = "mean"
    config.optimizer.schedule = "linear"
    config.optimizer.clip_norm = 0.5
    config.evaluation.greedy = True
    if game == "four":
        return _four(config)
    if game == "tictactoe":
        config.environment.id = "Connect"
        config.environment.kwargs.rows = 3
        config.environment.kwargs.columns = 3
        config.environment.kwargs.length = 3
        config.environment.kwargs.gravity = False
    else:
        config.environment.id = "pettingzoo.classic.tictactoe_v3:env"
    config.total_agent_steps = 4_000_000
    config.network.torso = "mlp"
    config.network.hidden_sizes = (128, 128)
    config.actors.environments = 32
    config.batch_size = 32
    config.unroll_length = 16
    # Much entropy at first: a policy that is sure too early never tries a cure.
    config.schedules.entropy_cost = "linear(0.15, 0.01, 3_500_000)"
    config.loss.discount_factor = 1.0
    config.optimizer.learning_rate = 2e-3
    config.actors.epsilon = 0.3  # every position must be met, also after a blunder
    return config


def _four(config):
    config.environment.id = "Connect"
    # Positions that self-play would not reach. Random moves in a quarter of all
    # decisions reach them, too, but they also teach to hope for blunders.
    config.environment.kwargs.opening = 12
    config.evaluation.kwargs.opening = 0
    config.actors.epsilon = 0.05
    # A move is two rows of a game of the policy against itself, and one of a game with
    # a snapshot: 11 million moves.
    config.total_agent_steps = 16_000_000
    config.algorithm = "impact"
    config.learner.passes = 2
    config.learner.precision = "auto"
    config.network.torso = f"{_HERE}:Lines"
    config.actors.environments = 128
    config.batch_size = 128
    config.unroll_length = 20
    config.league.every = 500_000
    config.league.size = 16
    config.league.share = 0.5
    config.league.draw = "hard"
    config.schedules.entropy_cost = "linear(0.1, 0.01, 14_000_000)"
    config.loss.discount_factor = 0.99
    config.vtrace.lambda_ = 0.95
    config.optimizer.learning_rate = 5e-4
    config.evaluation.during_training = False  # the mean of both sides is 0
    return config


class Lines(nn.Module):
    """Torso that sees which lines of four cells are open, and where one is missing.

    A line is open for a player if the other has no piece in it. A cell is a threat of
    a player if a piece there makes four in a row. Layers that see the board alone have
    to learn all that from the ends of games. It is for boards with gravity, on which
    four in a row win.
    """

    def __init__(self, spec, settings, length=4, units=256):
        super().__init__()
        (board,) = nest.flatten(spec)  # without the mask
        rows, columns, planes = board.shape
        if max(rows, columns) < length:
            raise errors.BadInput(
                f"a board of {rows}x{columns} has no line of {length} cells, and"
                f" {__name__}:Lines looks for those. Set config.network.torso=mlp."
            )
        self._columns, self._length = columns, length
        lines = torch.tensor(_lines(rows, columns, length)).float()  # [lines, cells]
        self.register_buffer("_lines", lines, persistent=False)
        num_lines, num_cells = lines.shape
        num_features = planes * (4 * num_cells + (length - 1) * num_lines)
        self.layers = nn.Sequential(
            *(nn.Linear(num_features, units), nn.ReLU()),
            *(nn.Linear(units, units), nn.ReLU()),
        )
        initialisers.orthogonal(self)

    def forward(self, observation):
        (board,) = nest.flatten(observation)
        return self.layers(torch.cat(self.planes(board), -1).flatten(1))

    def planes(self, board):
        """Returns what the layers see, 0 or 1, each [B, player, cells or lines].

        These are the pieces, the threats, those to play now, those to play after a
        piece below them, and the open lines with 1, 2 and 3 pieces.
        """
        pieces = board.flatten(1, 2).transpose(1, 2).float()
        empty = 1.0 - pieces.sum(1, keepdim=True)
        counts = pieces @ self._lines.t()
        counts = counts * (counts.flip(1) == 0)
        has = [(counts == count).float() for count in range(1, self._length)]
        threats = empty * ((has[-1] @ self._lines) > 0)
        now = empty - nn.functional.pad(empty, (0, self._columns))[..., self._columns :]
        later = nn.functional.pad(now, (0, self._columns))[..., self._columns :]
        return [pieces, threats, threats * now, threats * later, *has]


def _lines(rows, columns, length):
    """Returns each line of the board as 0 or 1 per cell, from the top row."""
    found = []
    for row, column in itertools.product(range(rows), range(columns)):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            cells = [(row + i * down, column + i * right) for i in range(length)]
            if all(0 <= r < rows and 0 <= c < columns for r, c in cells):
                line = [0] * (rows * columns)
                for r, c in cells:
                    line[r * columns + c] = 1
                found.append(line)
    return found
