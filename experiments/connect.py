"""Connect: two players of one policy learn against each other.

tictactoe ends with a policy against which the best answer gains nothing, in 60 s on 2
shared x86 cores: python tools/best_response.py DIR. tictactoe-pettingzoo is the same
through PettingZoo's environment. four is connect four with a league: in half of the
games a snapshot of the policy plays the other side. To compare it with others:

    impala-eval DIR --against=random
    impala-eval DIR --against=impala_mp.environments.minimax:play
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Connect"


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
    # 20 million moves: a move is two rows of a game of the policy against itself, and
    # one of a game with a snapshot.
    config.total_agent_steps = 30_000_000
    config.network.torso = "minatar"
    config.actors.environments = 64
    config.batch_size = 64
    config.unroll_length = 20
    config.league.every = 500_000
    config.league.size = 16
    config.league.share = 0.5
    config.league.draw = "hard"
    config.schedules.entropy_cost = "linear(0.1, 0.01, 27_000_000)"
    config.loss.discount_factor = 0.99
    config.vtrace.lambda_ = 0.95
    config.optimizer.learning_rate = 1e-3
    # With 0.03 games were too much alike: of 100 against minimax 6 were won after
    # 30,000,000 steps, and with 0.25 and convolutions 29 after 6,000,000.
    config.actors.epsilon = 0.25
    config.evaluation.during_training = False  # the mean of both sides is 0
    return config
