"""Multi-particle environments (mpe2): players that move in a plane, one policy.

spread: three players must cover three landmarks without collisions. The return of a
player over 25 steps is -26.8 for random play and about -12.7 for a script that assigns
landmarks. It reached -9.0 in 1,480,000 steps of the game, 400 s on 2 shared x86 cores.
spread-central gives the game's state to the values.
"""

from impala_mp import config as config_lib


def get_config(variant="spread"):
    game, *central = config_lib.one_of(variant, ("spread", "spread-central")).split("-")
    config = config_lib.get_base_config()
    config.environment.id = f"mpe2.simple_{game}_v3:parallel_env"
    config.environment.shows_player = True
    config.environment.shows_state = bool(central)
    config.total_agent_steps = 6_000_000  # 2,000,000 of the game
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
    return config
