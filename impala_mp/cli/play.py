"""impala-play: shows episodes of the newest checkpoint of a run, step by step.

    impala-play DIR [--episodes=1] [--greedy] [--window] [--delay_secs=0.05]

A terminal shows the picture or else the observation; beside it the policy's
probabilities, value, reward and return. Without a terminal, each step is one line.
Ctrl-C ends it.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

from absl import flags

from impala_mp.cli import command_line

FLAGS = flags.FlagValues()
_EPISODES = flags.DEFINE_integer(
    "episodes", 1, "Games to show.", lower_bound=1, flag_values=FLAGS
)
_GREEDY = flags.DEFINE_boolean(
    "greedy",
    None,
    "Take the most likely action; default: as in the config.",
    flag_values=FLAGS,
)
_WINDOW = flags.DEFINE_boolean(
    "window", False, "Show a window instead of the terminal.", flag_values=FLAGS
)
_DELAY_SECS = flags.DEFINE_float(
    "delay_secs",
    None,
    "Seconds between steps; default: 0.05, and 0 without a terminal.",
    lower_bound=0.0,
    flag_values=FLAGS,
)
_TRUST = command_line.define_trust(FLAGS)


def _play() -> None:
    folder = command_line.parse_folder(FLAGS, str(__doc__), "impala-play DIR")
    from impala_mp.evaluation import player

    player.play(
        folder,
        _EPISODES.value,
        _GREEDY.value,
        _WINDOW.value,
        _DELAY_SECS.value,
        trust=_TRUST.value,
    )


def main() -> None:
    """Entry point of the console script."""
    try:
        command_line.run(_play)
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
