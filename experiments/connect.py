"""Connect: two players of one policy learn against each other.

tictactoe ends with a policy against which the best answer gains nothing, in 60 s on 2
shared x86 cores: python tools/best_response.py DIR. tictactoe-pettingzoo is the same
through PettingZoo's environment. four is connect four with a league: in half of the
games a snapshot of the policy plays the other side. Run it from the repository's root,
where its network is found by name. To compare it with others:

    impala-eval DIR --against=random
    impala-eval DIR --against=impala_mp.environments.minimax:play
"""

import torch
from torch import nn

from impala_mp import config as config_lib, nest
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
    # a snapshot: 16 million moves.
    config.total_agent_steps = 24_000_000
    config.algorithm = "impact"
    config.learner.passes = 2
    config.learner.precision = "auto"
    config.network.torso = f"{_HERE}:Windows"
    config.actors.environments = 128
    config.batch_size = 128
    config.unroll_length = 20
    config.league.every = 500_000
    config.league.size = 16
    config.league.share = 0.5
    config.league.draw = "hard"
    config.schedules.entropy_cost = "linear(0.1, 0.01, 21_000_000)"
    config.loss.discount_factor = 0.99
    config.vtrace.lambda_ = 0.95
    config.optimizer.learning_rate = 5e-4
    config.evaluation.during_training = False  # the mean of both sides is 0
    return config


class Windows(nn.Module):
    """Torso that sees all windows of 4x4 cells by one layer, then has two more.

    Four in a row lie in one window.
    """

    def __init__(self, spec, settings, side=4, features=64, units=256):
        super().__init__()
        (board,) = nest.flatten(spec)  # without the mask
        rows, columns, planes = board.shape
        cells = torch.arange(rows * columns * planes).view(board.shape)
        windows = cells.unfold(0, side, 1).unfold(1, side, 1).flatten(0, 1)
        self._num_windows = len(windows)
        self.register_buffer("_places", windows.flatten(), persistent=False)
        self.window = nn.Sequential(nn.Linear(planes * side**2, features), nn.ReLU())
        self.board = nn.Sequential(
            *(nn.Linear(features * self._num_windows, units), nn.ReLU()),
            *(nn.Linear(units, units), nn.ReLU()),
        )
        initialisers.orthogonal(self)

    def forward(self, observation):
        (board,) = nest.flatten(observation)
        cells = board.flatten(1).float().index_select(1, self._places)
        windows = self.window(cells.unflatten(1, (self._num_windows, -1)))
        return self.board(windows.flatten(1))
