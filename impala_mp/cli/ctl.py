"""impala-ctl: reads and changes the live hyperparameters of a running training.

    impala-ctl DIR get [NAME ...]
    impala-ctl DIR set NAME=VALUE [NAME=VALUE ...]
    impala-ctl DIR unset NAME [NAME ...]    # back to its schedule, or to the config

A value is active when the command ends. It enters the next checkpoint and survives a
resume. The exit code is 0, 1 if the run does not answer, 2 if it refuses.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

from typing import Any

from impala_mp import errors
from impala_mp.cli import start

_TIMEOUT_SECS = 10.0  # in addition to the interval at which the run reads requests


def _request(verb: str, arguments: list[str]) -> dict[str, Any]:
    """Converts the arguments to a request for the run.

    Raises:
      BadInput: the arguments are not a request.
    """
    if verb == "get" or (verb == "unset" and arguments):
        return {verb: arguments}
    if verb == "set" and arguments:
        return {verb: dict(map(_assignment, arguments))}
    raise errors.BadInput(
        f"{' '.join([verb, *arguments])!r} is not a command. Use get [NAME ...], set"
        " NAME=VALUE ... or unset NAME ... See --help."
    )


def _assignment(argument: str) -> tuple[str, float]:
    name, equals, value = argument.partition("=")
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise errors.BadInput(f"{argument!r} is not NAME=VALUE. VALUE must be a number.")


def _ctl() -> None:
    from absl import flags

    from impala_mp.cli import command_line
    from impala_mp.storage import files, mailbox, workdir

    values = flags.FlagValues()
    named = command_line.define_workdir(values)
    arguments = command_line.parse(values, str(__doc__), positional=True)
    if named.value is not None and arguments[:1] != [named.value]:
        arguments.insert(0, named.value)
    if len(arguments) < 2:
        raise errors.BadInput(
            "a folder and a command are required. Use: impala-ctl DIR get."
        )
    path, verb, *rest = arguments
    request = _request(verb, rest)
    timeout = workdir.read_config(path).logging.interval_secs + _TIMEOUT_SECS
    try:
        answer = mailbox.ask(path, request, timeout)
    except mailbox.NoAnswer:
        print(
            f"impala-ctl: the run in {path} did not answer within {timeout:g} s. The"
            " request was withdrawn.",
            file=sys.stderr,
        )
        sys.exit(1)
    match answer:
        case {"refused": str(sentence)}:
            raise errors.BadInput(sentence)
        case {"lines": list(lines)}:
            print(files.visible("\n".join(map(str, lines))))
        case _:
            raise errors.BadInput(f"the answer of the run in {path} cannot be read.")


def main() -> None:
    """Entry point of the console script."""
    start.run(_ctl)


if __name__ == "__main__":
    main()
