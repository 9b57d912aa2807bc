"""MiniGrid-MemoryS7-v0: the object seen at the start is the one to choose at the end.

Observations are a Dict: the 7x7 view, the direction; the mission, which never changes,
is left out. Of MiniGrid's seven actions the three that lead anywhere are played: left,
right, forward. Episodes of at most 245 steps; the return is 1 - 0.9 steps/245 for the
right object, 0 for the wrong one. Variants: lstm (default), gtrxl, and none, which
remembers nothing, and need not: at the fork, facing back, all three objects are in
view. With --config.environment.kwargs.agent_view_size=3 they are not.
To be run from the folder above: what is below is found by its name.
"""

import gymnasium
from gymnasium import spaces, wrappers
from torch import nn
from torch.nn import functional

from impala_mp import config as config_lib, errors, initialisers


def get_config(variant="lstm"):
    config = config_lib.get_base_config()
    config.environment.id = "experiments.minigrid:make_memory"
    config.environment.ignored = ("mission",)
    config.network.encoders = {"image": "experiments.minigrid:make_grid"}
    config.network.core = config_lib.one_of(variant, ("lstm", "gtrxl", "none"))
    config.network.core_size = 64 if variant == "gtrxl" else 128
    config.network.joint_size = 128
    config.total_agent_steps = 3_000_000
    config.actors.environments = 32
    config.batch_size = 32
    config.unroll_length = 32
    config.algorithm = "impact"
    config.impact.clip_range = 0.2
    config.learner.passes = 8
    config.target.period = 1
    config.vtrace.lambda_ = 0.95
    config.loss.reduction = "mean"
    # A look back costs little, and is tried until what it shows has been learned.
    config.loss.discount_factor = 0.995
    config.schedules.entropy_cost = "linear(0.02, 0.002, 1500000)"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.5
    return config


def make_memory(agent_view_size=7, render_mode=None):
    try:
        env = gymnasium.make(
            "minigrid:MiniGrid-MemoryS7-v0",
            disable_env_checker=True,
            agent_view_size=agent_view_size,
            render_mode=render_mode,
        )
    except ModuleNotFoundError as error:
        raise errors.BadInput(
            "experiments/minigrid.py needs an extra that is not installed: pip"
            " install 'impala_mp[minigrid]'."
        ) from error
    return wrappers.TransformAction(env, int, spaces.Discrete(3))


class Grid(nn.Module):
    """Object, colour and state of a cell are categories: a plane for each value."""

    def __init__(self, view_size):
        super().__init__()
        padding = 1 if view_size < 5 else 0  # two convolutions have to fit
        layers = (
            nn.Conv2d(33, 32, 3, padding=padding),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=padding),
            nn.ReLU(),
        )
        self.layers = initialisers.orthogonal(nn.Sequential(*layers))

    def forward(self, image):  # uint8 [N, view, view, 3]
        planes = functional.one_hot(image.long().clamp(max=10), 11).flatten(-2)
        return self.layers(planes.permute(0, 3, 1, 2).float()).flatten(1)


def make_grid(observation_spec, config):
    return Grid(observation_spec.shape[0])
