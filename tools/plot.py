"""Draws learning curves of several runs and seeds.

python tools/plot.py --output=curve.png vtrace=runs/a0,runs/a1 none=runs/b0,runs/b1
python tools/plot.py --output=curve.svg --x=time_secs runs/a0 runs/b0
python tools/plot.py --output=run.png runs/a0

The learning curve of a single run has its games, evaluations, restarts, resumes and
live changes too.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from impala_mp import errors
from impala_mp.monitoring import curves, figures
from impala_mp.storage import files


def _named(groups: Sequence[str]) -> dict[str, list[str]]:
    """Returns the folders of each group by its label, or by the end of its path.

    Paths with the same end are names as they are.

    Raises:
      BadInput: two groups have one name.
    """
    pairs = [(label, path) for label, _, path in (g.rpartition("=") for g in groups)]
    ends = [os.path.basename(os.path.normpath(path)) for _, path in pairs]
    named: dict[str, list[str]] = {}
    for (label, path), end in zip(pairs, ends, strict=True):
        name = label or (path if ends.count(end) > 1 else end)
        if name in named:
            raise errors.BadInput(
                f"two groups have the name {name!r}. Give each its own: LABEL={path}."
            )
        named[name] = path.split(",")
    return named


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="+", metavar="[LABEL=]DIR[,DIR...]")
    parser.add_argument("--output", required=True, help="the PNG or SVG to write")
    parser.add_argument("--key", default="episode/return_mean", help="what to draw")
    parser.add_argument("--x", default="agent_steps", help="agent_steps, time_secs...")
    arguments = parser.parse_args()
    try:
        groups = _named(arguments.groups)
        files.check_place("output", arguments.output)
        figures.check_ending("--output", arguments.output)
        curves.plot(groups, arguments.output, key=arguments.key, x=arguments.x)
    except errors.BadInput as error:
        print(f"plot.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
