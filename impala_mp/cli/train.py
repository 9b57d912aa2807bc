"""impala-train: trains an agent.

    impala-train --config=experiments/catch.py --workdir=runs/catch

The same command again resumes from the newest checkpoint. With --check it looks for
problems, in the environment first, and trains nothing.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first


from impala_mp.cli import start
from impala_mp.runtime import launch


def _train() -> None:
    from absl import flags

    from impala_mp import errors
    from impala_mp.cli import command_line
    from impala_mp.config import user_code

    values = flags.FlagValues()
    config = command_line.define_config(values)
    workdir = flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run; created if missing.",
        flag_values=values,
    )
    profile = flags.DEFINE_integer(
        "profile_updates",
        0,
        "Number of updates and of actor 0's unrolls (in lockstep: of all actors) to"
        " trace into profiles/; 0: none.",
        lower_bound=0,
        flag_values=values,
    )
    check = flags.DEFINE_boolean(
        "check",
        False,
        "Check the run for problems and print a report; train nothing and write"
        " nothing.",
        flag_values=values,
    )
    # The experiment and module:factory find the user's modules.
    user_code.add_current_folder()
    command_line.parse(values, str(__doc__))
    if not check.value and not workdir.value:
        raise errors.BadInput("no --workdir=DIR is given. Name a folder for the run.")
    launch.set_environment()
    launch.set_temporary_folder()
    if check.value:
        sys.exit(launch.check(config.value, workdir.value))
    sys.exit(launch.train(config.value, workdir.value, profile.value))


def main() -> None:
    """Entry point of the console script."""
    start.run(_train)


if __name__ == "__main__":
    main()
