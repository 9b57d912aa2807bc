"""Multi-particle environments (mpe2): players that move in a plane.

spread: three players of one policy must cover three landmarks without collisions. The
return of a player over 25 steps is -26.8 for random play and about -12.7 for a script
that assigns landmarks. It reached -11.2 in 1,000,000 steps of the game, 445 s on 2
shared x86 cores. spread-central gives the game's state to the values. In spread-dqn
each player learns its own policy by DQN, from more steps.

tag: three hunters of one policy chase the prey of another. A script is an opponent of
each: impala-eval DIR --against=experiments.mpe:chase_or_flee
"""

import numpy as np

from impala_mp import config as config_lib

_VARIANTS = ("spread", "spread-central", "spread-dqn", "tag")


def get_config(variant="spread"):
    game, *kinds = config_lib.one_of(variant, _VARIANTS).split("-")
    is_dqn = kinds == ["dqn"]
    config = config_lib.get_dqn_config() if is_dqn else config_lib.get_base_config()
    config.environment.id = f"mpe2.simple_{game}_v3:parallel_env"
    config.environment.shows_player = game == "spread" and not is_dqn
    config.environment.shows_state = kinds == ["central"]
    config.total_agent_steps = 3_000_000  # 1,000,000 of the game
    config.unroll_length = 25  # an episode
    config.actors.environments = 48
    config.batch_size = 96
    config.network.hidden_sizes = (128, 128)
    # Players may drift away without bound, and values that look far ahead follow them:
    # with 0.99 and normalised observations the return fell back from -18 to -35.
    config.network.normalise_observations = False
    config.loss.discount_factor = 0.9
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "linear"
    if is_dqn:
        config.environment.sharing = "each"
        config.total_agent_steps = 4_500_000
        # A wrong action costs a step's delay, little beside what the others' moves do.
        # Dueling heads do not learn that part of the value for each action apart.
        config.network.dueling = True
        config.loss.popart = False
        config.optimizer.learning_rate = 1e-3
        config.batch_size = 48
        config.replay.reuse = 8.0
        config.replay.priority_exponent = 0.0
        config.replay.memory_mib = 64.0
        config.schedules.epsilon = "linear(1, 0.05, 500_000)"
    if game == "tag":
        config.environment.policies.hunters = "adversary_*"
        config.environment.policies.prey = "agent_*"
    return config


def chase_or_flee(observation, mask):
    """Moves hunters of tag towards the prey, and the prey away from the nearest hunter.

    After its own velocity and place, and two obstacles, a player sees where the others
    are; a hunter sees the prey's velocity as well.
    """
    others = observation[8:14].reshape(3, 2)
    if len(observation) == 16:
        direction = others[-1]
    else:
        direction = -others[np.linalg.norm(others, axis=1).argmin()]
    axis = int(np.abs(direction).argmax())
    return 1 + 2 * axis + int(direction[axis] > 0)
