"""MuJoCo's robots, by Gymnasium's protocol: HalfCheetah (default), Hopper, Ant, ...

Actions are a Box of torques. Observations are numbers, normalised by statistics of the
learned data. All robots have the same settings.
In 1,000,000 agent steps, 8 to 14 minutes on one x86 core, HalfCheetah reaches 3,900 to
4,400 (greedy, 100 episodes), Hopper 3,160 to 3,300, Walker2d 3,440 to 4,560.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "{}-v5"

_ROBOTS = (
    *("HalfCheetah", "Hopper", "Walker2d", "Ant", "Swimmer", "Humanoid"),
    *("HumanoidStandup", "InvertedPendulum", "InvertedDoublePendulum"),
    *("Reacher", "Pusher"),
)


def get_config(robot="HalfCheetah"):
    robot = config_lib.one_of(robot, _ROBOTS)
    config = config_lib.get_base_config()
    config.environment.id = f"{robot}-v5"
    config.total_agent_steps = 1_000_000
    config.network.critic = "separate"
    config.network.initial_std = 0.6
    config.actors.count = 1
    config.actors.environments = 2  # of each 1,024 steps a batch
    config.actors.slots = 8
    config.unroll_length = 128
    config.batch_size = 16
    config.learner.passes = 10
    config.learner.minibatches = 32
    config.impact.kl_cost = 0.2
    config.impact.centre_advantages = True
    config.loss.discount_factor = 0.995
    config.vtrace.lambda_ = 0.98
    config.loss.entropy_cost = 0.0
    config.optimizer.learning_rate = 3e-4
    return config
