"""impala-status: shows the processes and metrics of a run in a second terminal.

    impala-status DIR [--watch]

The exit code is 0 if the run is healthy or has ended well, else 1. A run is not healthy
if a process is hung or lost for good, or if nothing has been learned for a while.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import signal
import time

from absl import flags

from impala_mp import errors
from impala_mp.cli import command_line

FLAGS = flags.FlagValues()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", flag_values=FLAGS)
_WATCH = flags.DEFINE_boolean(
    "watch", False, "Refresh every second until the run ends.", flag_values=FLAGS
)


def _status() -> None:
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--workdir={sys.argv[1]}"  # impala-status DIR
    command_line.parse(FLAGS, str(__doc__))
    if not _WORKDIR.value:
        raise errors.BadInput("no folder is given. Use: impala-status DIR.")
    import rich.console

    from impala_mp.monitoring import health

    # A shell that starts this in the background has set SIGINT to ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = rich.console.Console()
    healthy, again = False, True
    try:
        while again:
            report = health.read(_WORKDIR.value)
            if _WATCH.value:
                console.clear()
            console.print(report.table)
            healthy, again = report.healthy, _WATCH.value and report.running
            time.sleep(again)
    except KeyboardInterrupt:
        pass  # the normal end of --watch
    sys.exit(not healthy)


def main() -> None:
    """Entry point of the console script."""
    command_line.run(_status)


if __name__ == "__main__":
    main()
