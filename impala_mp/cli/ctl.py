"""impala-ctl: reads and changes the live hyperparameters of a running training.

    impala-ctl DIR get [NAME ...]
    impala-ctl DIR set NAME=VALUE [NAME=VALUE ...]
    impala-ctl DIR unset NAME [NAME ...]    # back to its schedule, or to the config

What is set is in force when the command ends, enters the next checkpoint, and stays
when the run is gone on with. The exit code is 0, 1 if the run does not answer, 2 if it
refuses.
"""

import sys
from typing import Any

from absl import flags

from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.storage import mailbox, workdir

FLAGS = flags.FlagValues()

_TIMEOUT_SECS = 10.0  # beside the interval at which the run looks


def _question(verb: str, arguments: list[str]) -> dict[str, Any]:
    """What the run is asked.

    Raises:
      BadInput: the arguments make no question.
    """
    if verb == "get" or (verb == "unset" and arguments):
        return {verb: arguments}
    if verb == "set" and arguments:
        return {verb: dict(map(_assignment, arguments))}
    raise errors.BadInput(
        f"{' '.join([verb, *arguments])!r} is no command: use get [NAME ...], set"
        " NAME=VALUE ... or unset NAME ... See --help."
    )


def _assignment(argument: str) -> tuple[str, float]:
    name, equals, value = argument.partition("=")
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise errors.BadInput(f"{argument!r} is not NAME=VALUE with a number.")


def _ctl() -> None:
    arguments = command_line.parse(FLAGS, str(__doc__), positional=True)
    if len(arguments) < 2:
        raise errors.BadInput("a folder and a command are needed: impala-ctl DIR get.")
    path, verb, *rest = arguments
    question = _question(verb, rest)
    interval = workdir.read_config(path).logging.interval_secs
    try:
        answer = mailbox.ask(path, question, interval + _TIMEOUT_SECS)
    except mailbox.NoAnswer:
        print(
            f"impala-ctl: the run in {path} does not answer; nothing was asked of it"
            " any more.",
            file=sys.stderr,
        )
        sys.exit(1)
    if "refused" in answer:
        raise errors.BadInput(answer["refused"])
    print("\n".join(answer["lines"]))


def main() -> None:
    """The console script."""
    command_line.run(_ctl)


if __name__ == "__main__":
    main()
