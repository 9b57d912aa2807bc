"""Experiment: the config of a training. `impala-train --help=all` lists its fields."""

from typing import Any

from impala_mp import config as config_lib


def get_config() -> Any:
    config = config_lib.get_base_config()
    config.total_agent_steps = 50_000
    config.environment.id = "my_project.environment:MyProject-v0"
    config.network.torso = "my_project.network:torso"
    return config
