"""Battle (magent2): six against six on a map of 16x16 cells, one policy for all.

Players see 13x13 cells around them, may move or attack, and are out when dead. The
policy plays against itself. Compare with others side by side:

    impala-eval DIR --against=random
"""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_impala_config()
    config.environment.id = "magent2.environments.battle_v4:parallel_env"
    config.environment.kwargs.map_size = 16
    config.total_agent_steps = 10_000_000  # of players
    config.unroll_length = 20
    config.actors.environments = 96  # 8 games
    config.batch_size = 96
    config.network.torso = "mlp"
    config.network.hidden_sizes = (64, 64)
    config.loss.reduction = "mean"
    config.loss.popart = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "linear"
    config.optimizer.clip_norm = 0.5
    return config
