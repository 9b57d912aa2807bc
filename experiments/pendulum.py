"""Pendulum-v1: Gymnasium's protocol, episodes of 200 steps, torque as a Box.

The defaults learn it: -174 to -233 (greedy, 100 episodes, seeds 0, 1, 2) in 300,000
agent steps, 43 to 54 s on 2 busy x86 cores.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Pendulum-v1"


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "Pendulum-v1"
    return config
