"""Level-based foraging (lbforaging): two players must lift all food together.

The board has 8x8 cells and two pieces of food. Rewards are shares of the food: a game
has a total of 1 for both players at best, which is a mean return of 0.5 a player. The
total is 0.0045 for random play. The first rewards are a matter of luck: of three seeds
two began to learn at once, and one after 2,500,000 steps of the game; all came to 0.98
or 1.00.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "Foraging-8x8-2p-2f-coop-v3"


def get_config():
    config = config_lib.get_base_config()
    config.environment.id = ENVIRONMENT
    config.environment.tuples_are_players = True
    config.total_agent_steps = 10_000_000  # 5,000,000 of the game
    config.unroll_length = 25  # half of the longest episode
    config.actors.environments = 48
    config.batch_size = 48
    config.network.hidden_sizes = (128, 128)
    config.learner.passes = 2
    # A random game in a hundred ends with a reward. With 0.01 from the start, two of
    # three seeds stopped trying before they had met enough of them.
    config.schedules.entropy_cost = "linear(0.05, 0.01, 1_000_000)"
    # By their likeliest actions alone, two players of one policy wait for each other.
    config.evaluation.greedy = False
    return config
