"""Experiment: the config of a training. Its fields: impala_mp/config/base.py."""

from typing import Any

from impala_mp import config as config_lib


def get_config() -> Any:
    config = config_lib.get_base_config()
    config.total_agent_steps = 200_000
    config.environment.id = "my_project.environment:MyProject-v0"
    config.network.torso = "my_project.network:torso"
    config.network.hidden_sizes = (64, 64)
    config.actors.environments = 16
    config.batch_size = 32
    config.unroll_length = 10
    config.loss.reduction = "mean"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = 0.5
    return config
