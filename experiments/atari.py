"""Atari through ale-py. Variants: GAME[-TORSO][-sticky], e.g. Pong, Pong-deep-sticky.

Protocol of the paper (IMPALA, appendix G.1): 84x84 grey, action repeat 4, maximum over
the last 2 frames, stack of 4, 1 to 30 no-ops at the start, minimal action set. For the
learner, a lost life ends the episode, and rewards are clipped to [-1, 1].
`sticky` follows Machado et al. 2018 instead: the last action repeats with probability
0.25, without no-ops, and a lost life does not end the episode. Both report full-game,
unclipped returns. TORSO is nature (default), shallow or deep.
Pong reaches -20.1 after 670,080 agent steps, 10 minutes on 2 shared x86 cores. A full
training needs a GPU, or a night.
"""

from impala_mp import config as config_lib

ENVIRONMENT = "ALE/{}-v5"

_TORSOS = ("nature", "shallow", "deep")


def get_config(variant="Pong"):
    game, *words = variant.split("-")
    config = config_lib.get_impala_config()
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
    config.network.torso = "nature"
    for word in words:
        if config_lib.one_of(word, (*_TORSOS, "sticky")) == "sticky":
            config.environment.kwargs.update(
                noop_max=0, repeat_action_probability=0.25, episodic_life=False
            )
        else:
            config.network.torso = word
    config.total_agent_steps = 50_000_000  # 200M frames
    config.unroll_length = 20
    config.batch_size = 32
    config.actors.count = 0
    config.actors.environments = 16
    config.loss.reward_clipping = "abs_one"
    config.loss.entropy_cost = 0.01
    config.optimizer.name = "rmsprop_tensorflow"
    config.optimizer.learning_rate = 6e-4
    config.optimizer.decay = 0.99
    config.optimizer.momentum = 0.0
    config.optimizer.epsilon = 0.01
    config.optimizer.clip_norm = 40.0
    config.learner.micro_batches = 4
    return config
