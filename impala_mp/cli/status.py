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

from impala_mp.cli import start


def _status() -> None:
    from absl import flags

    from impala_mp.cli import command_line

    values = flags.FlagValues()
    watch = flags.DEFINE_boolean(
        "watch", False, "Refresh every second until the run ends.", flag_values=values
    )
    folder = command_line.parse_run(values, str(__doc__), "impala-status DIR")
    import rich.console

    from impala_mp.monitoring import health

    if watch.value:  # Ctrl-C is its normal end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    console = rich.console.Console()
    healthy, again = False, True
    try:
        while again:
            report = health.read(folder)
            if watch.value:
                console.clear()
            console.print(report.table)
            healthy, again = report.healthy, watch.value and report.running
            time.sleep(again)
    except KeyboardInterrupt:
        pass
    sys.exit(not healthy)


def main() -> None:
    """Entry point of the console script."""
    start.run(_status)


if __name__ == "__main__":
    main()
