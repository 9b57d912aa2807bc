"""Connect: two players of one policy learn against each other.

tictactoe ends where nobody can win any more: the best answer to it gains nothing.
four is connect four on 6 x 7 cells.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Connect"


def get_config(game="tictactoe"):
    game = config_lib.one_of(game, ("tictactoe",))
    config = config_lib.get_impala_config()
    config.environment.id = "Connect"
    config.environment.kwargs.rows = 3
    config.environment.kwargs.columns = 3
    config.environment.kwargs.length = 3
    config.environment.kwargs.gravity = False
    config.total_agent_steps = 4_000_000
    config.network.torso = "mlp"
    config.network.hidden_sizes = (128, 128)
    config.actors.environments = 64
    config.batch_size = 128
    config.unroll_length = 16
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.01
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.5
    config.actors.epsilon = 0.2
    config.evaluation.greedy = True
    return config
