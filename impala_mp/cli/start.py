"""Start and end of every command: signals from the first import on, exit codes."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from impala_mp.runtime import signals, streams


def run(function: Callable[[], Any]) -> None:
    """Runs a command; a script that calls its `main` ends here, in limited time.

    Bad input prints a sentence and exits with 2, without traceback. A signal exits with
    129, 130 or 143 and prints nothing. Other callers of `main` get a SystemExit.
    """
    if sys._getframe(2).f_code.co_name != "<module>":
        _run(function)
        return
    streams.fill_gaps()
    streams.end_on_errors()
    signals.exit_on_signals(os._exit)  # during the imports, which take a second
    from impala_mp.runtime import process_end

    process_end.leave(_code(function))


def _run(function: Callable[[], Any]) -> None:
    from impala_mp.cli import command_line

    command_line.run(function)


def _code(function: Callable[[], Any]) -> int:
    """Runs a command; returns its exit code."""
    try:
        from impala_mp.cli import command_line

        signals.exit_on_signals(signals.interrupt)
        command_line.run(function)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return (
            error.code if isinstance(error.code, int) else int(error.code is not None)
        )
    except KeyboardInterrupt:
        return 130
    except streams.OutputFailed as error:
        if not error.is_closed:
            print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        return error.code
    except BaseException as error:
        from impala_mp.config import user_code

        print(user_code.own_traceback(error) or traceback.format_exc(), file=sys.stderr)
        return 1
    return 0
