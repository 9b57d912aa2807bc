"""MiniGrid: MemoryS7, where the agent must choose the object that it saw at the start.

Observations are a Dict of the view, 3x3 cells, and the direction. The constant mission
is left out. MiniGrid's default view of 7x7 cells needs no memory: from the fork, facing
back, all three objects are visible. Only three of the seven actions are used: left,
right, forward. Episodes have at most 245 steps. The return is 1 - 0.9 steps/245 for the
right object, 0 for the wrong one. Variants: lstm (default), gtrxl, none, which has no
memory, and r2d2, which learns action values with the LSTM.

The variants doorkey and keycorridor are DoorKey-8x8 and KeyCorridorS3R1, with the
default view, all actions and the LSTM: a key opens the door to the goal, or to a ball
that must be picked up. They end at 0.97 and 0.95 (three seeds each), four minutes on 2
x86 cores.

Run the file from the repository's root, where its factories are found by name.
"""

import gymnasium
import numpy as np
from gymnasium import spaces, wrappers
from torch import nn

from impala_mp import config as config_lib, errors
from impala_mp.networks import cores

_VALUES = 11  # number of objects; there are fewer colours and states
_PLANES = 3 * _VALUES
_HERE = config_lib.module_of(__file__)
_CORES = {"lstm": f"{_HERE}:make_lstm", "gtrxl": "gtrxl", "none": "none"}
_KEYS = ("doorkey", "keycorridor")  # tasks with a key


def get_config(variant="lstm"):
    task = variant if variant in _KEYS else "memory"
    if config_lib.one_of(variant, (*_CORES, "r2d2", *_KEYS)) == "r2d2":
        config = _r2d2()
    else:
        config = _with_key() if variant in _KEYS else _impact(variant)
    config.environment.id = f"{_HERE}:make_{task}"
    config.environment.ignored = ("mission",)
    # Another object changes two of three hundred planes, and rarely. The agent has to
    # compare two objects, seen steps apart. So each plane is divided by its deviation,
    # and the LSTM's input is normalised. Without the division the return was 0.44 to
    # 0.57 after 800,000 steps, which is chance; with it 0.84 after 713,000.
    config.network.encoders = {"image": "mlp"}
    config.network.hidden_sizes = ()
    config.network.core_size = 64 if variant == "gtrxl" else 128
    config.network.joint_size = 128
    config.total_agent_steps = 1_500_000
    config.actors.environments = 32
    config.actors.count = 2
    config.actors.slots = 3
    config.batch_size = 32
    config.unroll_length = 32
    return config


def _r2d2():
    config = config_lib.get_r2d2_config()
    config.network.core = _CORES["lstm"]
    # An episode that looks back has some 20 steps. With a discount factor of 0.997 the
    # values of turning in circles and of going on hardly differ: the return fell to 0.
    config.loss.discount_factor = 0.98
    # R2D2's ladder ends at 0.4 ** 8. An agent that turns in circles then goes on so for
    # the 245 steps of an episode: seed 1 ended at 0.86 instead of 0.97.
    config.actors.epsilon_ladder = 3.0
    config.optimizer.learning_rate = 1e-3
    config.replay.reuse = 6.0
    return config


def _impact(variant):
    config = config_lib.get_base_config()
    config.network.core = _CORES[variant]
    config.impact.kl_cost = 0.0
    config.impact.normalise_advantages = False
    config.loss.popart = False
    config.evaluation.greedy = False
    # Looking back then costs little, and exploration lasts until its use is learned.
    config.loss.discount_factor = 0.995
    config.schedules.entropy_cost = "linear(0.02, 0.002, 1000000)"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    return config


def _with_key():
    config = _impact("lstm")
    # A random agent opens the door and reaches the goal in few games of a hundred. With
    # advantages as small as that, entropy alone was learned.
    config.impact.normalise_advantages = True
    config.loss.popart = True
    config.loss.discount_factor = 0.99
    config.loss.entropy_cost = 0.01
    config.schedules.entropy_cost = ""
    config.learner.passes = 4
    return config


def make_memory(agent_view_size=3, render_mode=None):
    return _make("MemoryS7-v0", 3, agent_view_size, render_mode)


def make_doorkey(agent_view_size=7, render_mode=None):
    return _make("DoorKey-8x8-v0", 7, agent_view_size, render_mode)


def make_keycorridor(agent_view_size=7, render_mode=None):
    return _make("KeyCorridorS3R1-v0", 7, agent_view_size, render_mode)


def _make(name, num_actions, agent_view_size, render_mode):
    if agent_view_size < 3 or agent_view_size % 2 == 0:
        raise errors.BadInput(
            f"agent_view_size ({agent_view_size}) must be odd and at least 3. Set"
            " config.environment.kwargs.agent_view_size."
        )
    try:
        env = gymnasium.make(
            f"minigrid:MiniGrid-{name}",
            disable_env_checker=True,
            agent_view_size=agent_view_size,
            render_mode=render_mode,
        )
    except ModuleNotFoundError as error:
        raise errors.BadInput(
            "experiments/minigrid.py needs an extra that is not installed. Run pip"
            " install 'impala_mp[minigrid]'."
        ) from error
    shape = (agent_view_size, agent_view_size, _PLANES)
    image = spaces.Box(0, 1, shape, np.uint8)
    seen = spaces.Dict({**env.observation_space, "image": image})
    env = wrappers.TransformObservation(env, _with_planes, seen)
    return wrappers.TransformAction(env, int, spaces.Discrete(num_actions))


def _with_planes(observation):
    """Encodes object, colour and state of each cell with one plane per value."""
    image = observation["image"]
    planes = np.eye(_VALUES, dtype=np.uint8)[image]
    return {**observation, "image": planes.reshape(*image.shape[:2], _PLANES)}


class NormalisedLSTM(cores.LSTMCore):
    """LSTM whose input is normalised (Ba et al. 2016) to a large scale."""

    def __init__(self, input_size, size):
        super().__init__(input_size, size)
        self.norm = nn.LayerNorm(input_size)
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, inputs, first, state):
        return super().forward(self.norm(inputs), first, state)


def make_lstm(input_size, config):
    return NormalisedLSTM(input_size, config.core_size)
