"""Catch: a paddle must be under a falling ball. The smoke test of an installation.

Reaches the maximum of 1.00 in 400,000 agent steps. From the command to the end of the
final evaluation that takes 7 to 10 s on 2 shared x86 cores.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Catch"


def get_config():
    config = config_lib.get_impala_config()
    config.total_agent_steps = 400_000
    config.environment.id = "Catch"
    config.network.torso = "mlp"
    config.network.hidden_sizes = (64, 64)
    config.actors.environments = 32
    config.batch_size = 64
    config.unroll_length = 10
    config.loss.entropy_cost = 0.003
    config.loss.reduction = "mean"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = 0.5
    config.evaluation.greedy = True
    return config
