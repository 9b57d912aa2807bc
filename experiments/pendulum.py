"""Pendulum-v1: Gymnasium's own protocol, episodes of 200 steps; torque as a Box."""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "Pendulum-v1"
    config.total_agent_steps = 1_200_000
    config.network.hidden_sizes = (64, 64)
    config.network.normalise_observations = True
    config.actors.count = 1
    config.actors.slots = 1
    config.actors.environments = 16
    config.batch_size = 16
    config.unroll_length = 20
    config.algorithm = "impact"
    config.learner.passes = 4
    config.target.period = 4
    config.loss.discount_factor = 0.9
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.0
    config.loss.popart = True
    config.loss.popart_beta = 3e-3
    config.optimizer.learning_rate = 7e-4
    config.optimizer.clip_norm = 0.5
    config.evaluation.greedy = True
    return config
