"""Battle (magent2): six against six on a map of 16x16 cells, one policy for all.

Players see 13x13 cells around them, may move or attack, and are out when dead. The
policy plays against itself. Compare with others side by side; a side wins with the
higher return, which it may have without a kill:

    impala-eval DIR --against=random

In the first move of a game magent2 0.3.4 gives red's actions to blue as well.
"""

from impala_mp import config as config_lib


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = "magent2.environments.battle_v4:parallel_env"
    config.environment.kwargs.map_size = 16
    config.total_agent_steps = 10_000_000  # of players
    config.unroll_length = 20
    config.actors.environments = 96  # 8 games
    config.batch_size = 96
    # Convolutions would take five times as many multiplications. Cells are normalised
    # (the default): without that the policy was still passive after 500,000 steps.
    config.network.torso = "mlp"
    config.learner.passes = 2  # by V-trace, still passive after 900,000 steps
    config.evaluation.greedy = False  # as it acts against itself
    config.evaluation.environments = 96
    return config
