"""impala-play: shows episodes of a checkpoint of a run, step by step.

    impala-play DIR [--episodes=1] [--checkpoint=best] [--nogreedy] [--window]
        [--delay_secs=0.05]

A terminal shows the picture or else the observation; beside it the policy's
probabilities, value, reward and return. Without a terminal, each step is one line.
Ctrl-C ends it.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import signal

from impala_mp.cli import start

_MAX_SECS = 3600.0  # between steps


def _play() -> None:
    from absl import flags

    from impala_mp import errors
    from impala_mp.cli import command_line

    values = flags.FlagValues()
    episodes = flags.DEFINE_integer(
        "episodes", 1, "Games to show.", lower_bound=1, flag_values=values
    )
    greedy = flags.DEFINE_boolean(
        "greedy",
        None,
        "Take the most likely actions, or draw them; default: evaluation.greedy.",
        flag_values=values,
    )
    window = flags.DEFINE_boolean(
        "window", False, "Show a window instead of the terminal.", flag_values=values
    )
    delay_secs = flags.DEFINE_float(
        "delay_secs",
        None,
        "Seconds between steps; default: 0.05, and 0 without a terminal.",
        flag_values=values,
    )
    policy = flags.DEFINE_string(
        "policy", "", "Which member of a population plays.", flag_values=values
    )
    which = command_line.define_checkpoint(values)
    trust = command_line.define_trust(values)
    folder = command_line.parse_run(values, str(__doc__), "impala-play DIR")
    if delay_secs.value is not None and not 0.0 <= delay_secs.value <= _MAX_SECS:
        raise errors.BadInput(
            f"--delay_secs={delay_secs.value} must be from 0 to {_MAX_SECS:g}. Set"
            " --delay_secs."
        )
    from impala_mp.evaluation import player

    try:
        player.play(
            folder,
            episodes.value,
            greedy.value,
            window.value,
            delay_secs.value,
            trust=trust.value,
            which=command_line.checkpoint(which.value),
            policy=policy.value,
        )
    except (KeyboardInterrupt, errors.Interrupted) as error:
        if getattr(error, "code", 0) not in (0, 128 + signal.SIGINT):
            raise


def main() -> None:
    """Entry point of the console script."""
    start.run(_play)


if __name__ == "__main__":
    main()
