"""Pendulum-v1: Gymnasium's protocol, episodes of 200 steps, torque as a Box.

Reaches -160 to -180 (greedy, 100 episodes) in 500,000 agent steps.
"""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "Pendulum-v1"
    config.total_agent_steps = 500_000
    config.network.hidden_sizes = (64, 64)
    config.network.normalise_observations = True
    config.actors.count = 1
    config.actors.slots = 1
    config.actors.environments = 8
    config.batch_size = 8
    config.unroll_length = 64
    config.algorithm = "impact"
    config.impact.clip_range = 0.2
    config.impact.kl_cost = 0.3
    config.learner.passes = 8
    config.target.period = 1
    config.vtrace.lambda_ = 0.95
    config.loss.discount_factor = 0.95
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.0
    config.loss.popart = True
    config.loss.popart_beta = 3e-3
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.5
    config.evaluation.greedy = True
    return config
