"""Atari through ale-py. Variants: GAME[-ALGORITHM][-TORSO][-sticky], e.g. Pong-sticky.

Protocol of the paper (IMPALA, appendix G.1): 84x84 grey, action repeat 4, maximum over
the last 2 frames, stack of 4, 1 to 30 no-ops at the start, minimal action set. For the
learner, a lost life ends the episode, and rewards are clipped to [-1, 1].
`sticky` follows Machado et al. 2018 instead: the last action repeats with probability
0.25, without no-ops, and a lost life does not end the episode. Both report full-game,
unclipped returns. TORSO is nature (default), shallow or deep.

ALGORITHM is vtrace (default, with the paper's settings), dqn or iqn. Pong-dqn wins 100
games by 20.2 to 21.0 points after 2.1M to 2.7M agent steps, less than an hour on 2
shared x86 cores (three seeds). By vtrace it stands at -20.1 after ten minutes; it was
not trained to the end.

dqn and iqn learn from a replay of 8 GiB, which is 1,000,000 transitions with each frame
stored once. They are double, with priorities and returns of five steps, and each
transition is learned four times. The target network moves every 4,000 agent steps;
epsilon falls from 1 to 0.01 in 100,000. GAME-dqn has dueling heads and a Huber loss;
GAME-iqn has 8 quantiles, and has not been trained yet.
"""

from impala_mp import config as config_lib, errors

ENVIRONMENT = "ALE/{}-v5"

_TORSOS = ("nature", "shallow", "deep")


def get_config(variant="Pong"):
    game, *words = variant.split("-")
    for word in words:
        config_lib.one_of(word, (*_MAKERS, *_TORSOS, "sticky"))
    config = _MAKERS[_word(words, _MAKERS, "vtrace")]()
    config.environment.id = f"ALE/{game}-v5"
    config.environment.kwargs = dict(
        frameskip=4,
        stack_num=4,
        noop_max=30,
        repeat_action_probability=0.0,
        episodic_life=True,
        full_action_space=False,
        use_fire_reset=False,
        max_num_frames_per_episode=108_000,
    )
    config.network.torso = _word(words, _TORSOS, "nature")
    if "sticky" in words:
        config.environment.kwargs.update(
            noop_max=0, repeat_action_probability=0.25, episodic_life=False
        )
    config.total_agent_steps = 50_000_000  # 200M frames
    config.actors.count = 0
    config.learner.precision = config.inference.precision = "auto"
    config.loss.reward_clipping = "abs_one"
    return config


def _word(words, choices, default):
    """Returns the one of `choices` in `words`, or the default."""
    found = [word for word in words if word in choices]
    if len(found) > 1:
        raise errors.BadInput(
            f"there is no variant with both {found[0]} and {found[1]}. Choose one."
        )
    return found[0] if found else default


def _vtrace():
    config = config_lib.get_impala_config()
    config.unroll_length = 20
    config.batch_size = 32
    config.actors.environments = 32
    config.loss.entropy_cost = 0.01
    config.optimizer.name = "rmsprop_tensorflow"
    config.optimizer.learning_rate = 6e-4
    config.optimizer.decay = 0.99
    config.optimizer.momentum = 0.0
    config.optimizer.epsilon = 0.01
    config.optimizer.clip_norm = 40.0
    config.learner.micro_batches = 4
    return config


def _dqn():
    config = _replayed(config_lib.get_dqn_config())
    config.network.dueling = True
    config.loss.baseline = "huber"
    return config


def _iqn():
    return _replayed(config_lib.get_iqn_config())


def _replayed(config):
    config.unroll_length = 20
    config.actors.environments = 16
    config.batch_size = 16  # small: the number of updates counts, not that of rows
    config.network.normalise_observations = False  # bytes are divided by 255
    config.schedules.epsilon = "linear(1, 0.01, 100_000)"
    config.loss.popart = False
    config.optimizer.schedule = "constant"
    config.dqn.n_step = 5
    config.target.period = 50  # of 80 agent steps each
    config.replay.reuse = 4.0
    config.replay.start = 500  # 10,000 agent steps
    config.replay.memory_mib = 8192.0
    config.replay.priority_exponent = 0.5
    return config


_MAKERS = {"vtrace": _vtrace, "dqn": _dqn, "iqn": _iqn}
