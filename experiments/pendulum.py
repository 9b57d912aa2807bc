"""Pendulum-v1: Gymnasium's protocol, episodes of 200 steps, torque as a Box.

Reaches -160 to -180 (greedy, 100 episodes) in 500,000 agent steps.
"""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "Pendulum-v1"
    config.total_agent_steps = 500_000
    config.actors.count = 1
    config.actors.slots = 1
    config.batch_size = 8
    config.impact.normalise_advantages = False
    config.loss.discount_factor = 0.95
    config.loss.entropy_cost = 0.0
    return config
