"""MiniGrid-MemoryS7-v0: the object seen at the start is the one to choose at the end.

Observations are a Dict: the 7x7 view, the direction; the mission, which never changes,
is left out. Episodes of at most 245 steps; the return is 1 - 0.9 steps/245 for the
right object, 0 for the wrong one. Variants: lstm (default), gtrxl, and none, which
cannot remember.
"""

from impala_mp import config as config_lib


def get_config(variant="lstm"):
    config = config_lib.get_base_config()
    config.environment.id = "MiniGrid-MemoryS7-v0"
    config.environment.ignored = ("mission",)
    config.network.core = config_lib.one_of(variant, ("lstm", "gtrxl", "none"))
    config.network.core_size = 128
    config.network.joint_size = 128
    config.network.normalise_observations = True
    config.total_agent_steps = 5_000_000
    config.actors.environments = 32
    config.batch_size = 32
    config.unroll_length = 32
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.01
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.5
    return config
