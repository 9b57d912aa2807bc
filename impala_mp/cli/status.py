"""impala-status: shows the state of a run, or of all runs in a folder.

    impala-status DIR [--watch] [--processes]

DIR is a run, or a folder of runs, which become a table with a line each. The exit code
is 0 if the run, or every run of the table, is healthy or has ended well, else 1. A run
is not healthy if a process is hung or lost for good, if nothing has been learned for a
while, or if it was killed or has failed. Bad input has exit code 2.
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
    processes = flags.DEFINE_boolean(
        "processes",
        False,
        "List the processes of the run also if all are well.",
        flag_values=values,
    )
    folder = command_line.parse_run(values, str(__doc__), "impala-status DIR")
    import rich.console

    from impala_mp.monitoring import overview, status

    if watch.value:  # Ctrl-C is its normal end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    console = rich.console.Console()
    ascii_only = console.options.ascii_only
    healthy, again = False, True
    try:
        while again:
            start = time.monotonic()
            if overview.is_folder_of_runs(folder):
                report = overview.read(folder)
            else:
                report = status.read(folder, processes.value, ascii_only)
            if watch.value:
                console.clear()
            console.print(report.table)
            healthy, again = report.healthy, watch.value and report.running
            secs = max(1.0, 4 * (time.monotonic() - start))  # a long run reads slowly
            time.sleep(secs * again)
    except KeyboardInterrupt:
        pass
    sys.exit(not healthy)


def main() -> None:
    """Entry point of the console script."""
    start.run(_status)


if __name__ == "__main__":
    main()
