"""MiniGrid-MemoryS7-v0: the object seen at the start is the one to choose at the end.

Observations are a Dict: the view, 3x3 cells, and the direction; the mission, which
never changes, is left out. With MiniGrid's own 7x7 it asks for no memory: at the fork,
facing back, all three objects are in view. Of its seven actions the three that lead
anywhere are played: left, right, forward. Episodes of at most 245 steps; the return is
1 - 0.9 steps/245 for the right object, 0 for the wrong one. Variants: lstm (default),
gtrxl, and none, which remembers nothing.
To be run from the folder above: what is below is found by its name.
"""

import gymnasium
import numpy as np
from gymnasium import spaces, wrappers
from torch import nn

from impala_mp import config as config_lib, errors
from impala_mp.networks import cores

_VALUES = 11  # of an object, the most; of a colour and a state there are fewer
_PLANES = 3 * _VALUES
_CORES = {"lstm": "experiments.minigrid:make_lstm", "gtrxl": "gtrxl", "none": "none"}


def get_config(variant="lstm"):
    config = config_lib.get_base_config()
    config.environment.id = "experiments.minigrid:make_memory"
    config.environment.ignored = ("mission",)
    # One object for another changes two planes in three hundred, and seldom. What two
    # of them, seen steps apart, have in common is found once they count for much: each
    # plane is divided by its deviation, and the LSTM's input brought to one scale.
    config.network.encoders = {"image": "mlp"}
    config.network.hidden_sizes = ()
    config.network.normalise_observations = True
    config.network.core = _CORES[config_lib.one_of(variant, tuple(_CORES))]
    config.network.core_size = 64 if variant == "gtrxl" else 128
    config.network.joint_size = 128
    config.total_agent_steps = 1_500_000
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
    config.schedules.entropy_cost = "linear(0.02, 0.002, 1000000)"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.5
    return config


def make_memory(agent_view_size=3, render_mode=None):
    if agent_view_size < 3 or agent_view_size % 2 == 0:
        raise errors.BadInput(
            f"agent_view_size ({agent_view_size}) must be odd, and at least 3: set"
            " config.environment.kwargs.agent_view_size."
        )
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
    shape = (agent_view_size, agent_view_size, _PLANES)
    image = spaces.Box(0, 1, shape, np.uint8)
    seen = spaces.Dict({**env.observation_space, "image": image})
    env = wrappers.TransformObservation(env, _with_planes, seen)
    return wrappers.TransformAction(env, int, spaces.Discrete(3))


def _with_planes(observation):
    """Object, colour and state of a cell are categories: a plane for each value."""
    image = observation["image"]
    planes = np.eye(_VALUES, dtype=np.uint8)[image]
    return {**observation, "image": planes.reshape(*image.shape[:2], _PLANES)}


class NormalisedLSTM(cores.LSTMCore):
    """Its input is brought to one scale (Ba et al. 2016), and that is a large one."""

    def __init__(self, input_size, size):
        super().__init__(input_size, size)
        self.norm = nn.LayerNorm(input_size)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, inputs, first, state):
        return super().forward(self.norm(inputs), first, state)


def make_lstm(input_size, config):
    return NormalisedLSTM(input_size, config.core_size)
