"""impala-eval: plays full games with the newest checkpoint of a run.

    impala-eval --workdir=runs/catch --episodes=100 [--greedy] [--video=FILE.gif]

The last line is JSON: mean, median, std, min, max, episodes, protocol.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import json

from absl import flags

from impala_mp import errors
from impala_mp.cli import command_line

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", flag_values=FLAGS)
_EPISODES = flags.DEFINE_integer(
    "episodes", 100, "Games to play.", lower_bound=1, flag_values=FLAGS
)
_GREEDY = flags.DEFINE_boolean(
    "greedy",
    None,
    "Take the most likely action; default: as in the config.",
    flag_values=FLAGS,
)
_VIDEO = flags.DEFINE_string(
    "video", None, "A .gif file for a film of the first environment.", flag_values=FLAGS
)
_TRUST = command_line.define_trust(FLAGS)


def _evaluate() -> None:
    command_line.parse(FLAGS, str(__doc__))
    if not _WORKDIR.value:
        raise errors.BadInput("no --workdir=DIR is given. Name the folder of a run.")
    from impala_mp.evaluation import evaluate

    result = evaluate.evaluate(
        _WORKDIR.value,
        _EPISODES.value,
        _GREEDY.value,
        video=_VIDEO.value,
        trust=_TRUST.value,
    )
    print(json.dumps(result))


def main() -> None:
    """Entry point of the console script."""
    command_line.run(_evaluate)


if __name__ == "__main__":
    main()
