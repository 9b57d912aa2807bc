"""MinAtar (Young and Tian 2019): GAME is Asterix, Breakout, Freeway, Seaquest or
SpaceInvaders; version 1 ids, minimal action set, sticky actions 0.1, difficulty ramp.
GAME-replay learns as much again from replayed trajectories; GAME-impact makes two
passes over each batch by IMPACT's surrogate.
Breakout reaches 23.4 in 5,000,000 agent steps: 204 s on 2 shared x86 cores.
"""

from impala_mp import config as config_lib

_GAMES = ("Breakout", "Asterix", "Freeway", "Seaquest", "SpaceInvaders")
_VARIANTS = tuple(f"{g}{kind}" for g in _GAMES for kind in ("", "-replay", "-impact"))


def get_config(game="Breakout"):
    config = config_lib.get_base_config()
    game, _, kind = config_lib.one_of(game, _VARIANTS).partition("-")
    config.environment.id = f"MinAtar/{game}-v1"
    config.total_agent_steps = 5_000_000
    config.network.torso = "minatar"
    config.actors.environments = 32
    config.batch_size = 32
    config.unroll_length = 10
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.01
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 0.5
    if kind == "replay":
        config.batch_size = 64
        config.replay.ratio = 0.5
        config.replay.memory_mib = 64.0
    if kind == "impact":
        config.algorithm = "impact"
        config.learner.passes = 2
        config.target.period = 2
    return config
