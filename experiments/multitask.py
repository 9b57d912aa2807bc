"""Four MinAtar games with one agent: actors play different games, PopArt scales each.

Protocol as in minatar.py. Observations are padded to the largest number of channels.
Actions that a game does not have are masked. In 20M agent steps each game reaches at
least its return alone in 5M. The exception is Breakout: one seed of three reaches half.
"""

from impala_mp import config as config_lib

_GAMES = ("Breakout", "Asterix", "Freeway", "SpaceInvaders")


def get_config():
    config = config_lib.get_impala_config()
    config.environment.id = ", ".join(f"MinAtar/{game}-v1" for game in _GAMES)
    config.total_agent_steps = 20_000_000
    config.network.encoders = {"observation": "minatar"}
    config.network.joint_size = 256
    config.actors.count = 4
    config.actors.environments = 32
    config.batch_size = 64
    config.unroll_length = 10
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.01  # for advantages at unit scale
    config.loss.popart = True
    config.loss.popart_beta = 3e-4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 0.5
    return config
