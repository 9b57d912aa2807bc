"""Pendulum-v1: Gymnasium's protocol, episodes of 200 steps, torque as a Box.

The defaults learn it: -164 to -203 (greedy, 100 episodes, seeds 0, 1, 2) in 300,000
agent steps, 33 to 37 s on 2 x86 cores.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Pendulum-v1"


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "Pendulum-v1"
    return config
