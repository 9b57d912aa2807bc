"""MinAtar (Young and Tian 2019): GAME is Asterix, Breakout, Freeway, Seaquest or
SpaceInvaders; version 1 ids, minimal action set, sticky actions 0.1, difficulty ramp.
Breakout reaches a return of 20 (19.8, 19.9, 21.4 for seeds 0, 1, 2) in 5M agent steps.

GAME-replay adds one replayed trajectory per fresh one. Its batch is twice as large, so
it makes the same number of updates in the same agent steps, at the same learning rate.
GAME-impact makes two passes over each batch with IMPACT's surrogate. GAME-twice makes
two with V-trace, which separates the effect of the surrogate from that of the pass.
GAME-dqn and GAME-pqn learn action values, with and without replay and target network.
GAME-iqn learns quantiles of the returns, with the settings of GAME-dqn, but that each
trajectory is learned twice as often.

The suffix -study (GAME-study, GAME-replay-study...) makes runs differ only in their
algorithm: each is one process and acts with parameters four updates old. Compare with

    python tools/study.py --output=runs/breakout --target=10 experiments/minatar.py:Breakout{,-replay,-impact,-twice}-study
"""  # noqa: E501

from impala_mp import config as config_lib

ENVIRONMENT = "MinAtar/{}-v1"

_GAMES = ("Breakout", "Asterix", "Freeway", "Seaquest", "SpaceInvaders")
_KINDS = ("", "-replay", "-impact", "-twice")
_VARIANTS = (
    *(
        f"{game}{kind}{study}"
        for game in _GAMES
        for kind in _KINDS
        for study in ("", "-study")
    ),
    *(f"{game}-{kind}" for game in _GAMES for kind in ("dqn", "iqn", "pqn")),
)


def get_config(game="Breakout"):
    game, *kinds = config_lib.one_of(game, _VARIANTS).split("-")
    if kinds in (["dqn"], ["iqn"], ["pqn"]):
        return _values(game, *kinds)
    config = config_lib.get_impala_config()
    config.environment.id = f"MinAtar/{game}-v1"
    config.total_agent_steps = 5_000_000
    config.network.torso = "minatar"
    config.actors.environments = 32
    config.batch_size = 32
    config.unroll_length = 10
    config.loss.reduction = "mean"
    config.loss.entropy_cost = 0.03  # with 0.01 some seeds plateau at a return of 6
    config.optimizer.learning_rate = 2e-3
    config.optimizer.clip_norm = 0.5
    if "replay" in kinds:
        config.batch_size = 64
        config.replay.ratio = 0.5
        config.replay.memory_mib = 64.0
    if "impact" in kinds:
        config.algorithm = "impact"
        config.impact.clip_range = 0.3
        config.impact.kl_cost = 0.0
        config.impact.normalise_advantages = False
        config.learner.passes = 2
        config.target.period = 2
    if "twice" in kinds:
        config.learner.passes = 2
    if "study" in kinds:
        config.runtime.mode = "lockstep"
        config.actors.count = 1
        config.actors.slots = 1
        config.actors.policy_delay = 4
    return config


def _values(game, kind):
    makers = {
        "dqn": config_lib.get_dqn_config,
        "iqn": config_lib.get_iqn_config,
        "pqn": config_lib.get_pqn_config,
    }
    config = makers[kind]()
    config.environment.id = f"MinAtar/{game}-v1"
    config.total_agent_steps = 5_000_000
    config.network.torso = "minatar"
    config.network.normalise_observations = False
    config.actors.environments = 32
    config.batch_size = 32
    config.learner.precision = "auto"
    config.schedules.epsilon = "linear(1, 0.05, 500_000)"
    if kind == "pqn":
        # Small batches: with 32 x 32 rows Breakout reached 14 instead of 23.
        config.unroll_length = 8
        config.learner.passes = 1
        config.optimizer.learning_rate = 7e-4
    else:
        # Seaquest reached 103 in 5M steps, and 7.5 with a quarter of this rate.
        config.optimizer.learning_rate = 2e-3
        config.replay.reuse = 4.0 if kind == "iqn" else 2.0  # IQN reached 17 with 2
        config.replay.memory_mib = 512.0
    return config
