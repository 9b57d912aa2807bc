"""HalfCheetah-v5 (MuJoCo): Gymnasium's own protocol, episodes of 1000 steps; six
torques as a Box, seventeen numbers seen, normalised by what has been learned from.
"""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "HalfCheetah-v5"
    config.total_agent_steps = 10_000_000
    config.network.hidden_sizes = (64, 64)
    config.network.normalise_observations = True
    config.actors.environments = 16
    config.batch_size = 32
    config.unroll_length = 32
    config.algorithm = "impact"
    config.learner.passes = 4
    config.target.period = 1
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.0
    config.loss.popart = True
    config.loss.popart_beta = 3e-3
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.5
    config.evaluation.greedy = True
    return config
