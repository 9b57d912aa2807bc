"""impala-train: trains an agent.

    impala-train WHAT [--workdir=DIR] [--config.FIELD=VALUE ...]
    impala-train --config=FILE.py[:VARIANT] [--workdir=DIR] [--config.FIELD=VALUE ...]
    impala-train DIR [--change.FIELD=VALUE ...]

WHAT is a preset (catch, minatar:Breakout), a Gymnasium id (CartPole-v1), or the user's
own module:Id or module:factory. Without --workdir the run is in runs/ENVIRONMENT/DATE.
With the folder of a run it resumes from the newest checkpoint, and so does the same
command with --workdir. --change gives a field of learning another value from there on.
--start_from=DIR begins a new run with the weights and statistics of another.
With --check it looks for problems, in the environment first, and trains nothing.
--list shows the presets and their variants.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import functools
from typing import Any

from impala_mp.cli import start
from impala_mp.runtime import launch


def _define(values: Any) -> None:
    """Defines the flags of this command, but --config and --trust."""
    from absl import flags

    boolean = functools.partial(flags.DEFINE_boolean, flag_values=values)
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string("workdir", None, "Folder of the run; created if missing.")
    string(
        "start_from",
        "",
        "Run that a new run takes its first weights and statistics from, as far as"
        " they fit: DIR, DIR:UPDATE or DIR:best.",
    )
    flags.DEFINE_integer(
        "profile_updates",
        0,
        "Number of updates and of actor 0's unrolls (in lockstep: of all actors) to"
        " trace into profiles/; 0: none.",
        lower_bound=0,
        flag_values=values,
    )
    boolean(
        "check",
        False,
        "Check the run for problems and print a report; train nothing and write"
        " nothing.",
    )
    boolean("detach", False, "Train in the background, without a terminal.")


def _train() -> None:
    from absl import flags

    from impala_mp.cli import command_line, detach, what
    from impala_mp.config import user_code
    from impala_mp.storage import trust

    # The experiment and module:factory find the user's modules.
    user_code.add_current_folder()
    given = sys.argv[1:]
    if "list" in command_line.asked(given):
        print(what.listing())
        return
    named, changes, sys.argv[1:] = what.take(given)
    values = flags.FlagValues()
    config = command_line.define_config(values)
    _define(values)
    command_line.define_trust(values)
    command_line.parse(values, str(__doc__))
    path = values.workdir
    if named.workdir:
        path = named.workdir
        trust.admit(config.value, path, values.trust)
    launch.set_temporary_folder()
    if not path:
        path = what.new_workdir(config.value)
        given.append(f"--workdir={path}")
    if values.check:
        sys.exit(launch.check(config.value, path, changes, values.start_from))
    if values.detach:
        sys.exit(detach.train(given, path))
    parts = (values.profile_updates, changes, values.start_from)
    sys.exit(launch.train(config.value, path, *parts))


def main() -> None:
    """Entry point of the console script."""
    # Before numpy is imported, too: with a thread of its BLAS the fork server could be
    # no fork of this process, and would import torch once more.
    launch.set_environment()
    start.run(_train)


if __name__ == "__main__":
    main()
