"""impala-report: writes all of a run as one HTML file: curve, warnings, config, film.

    impala-report DIR [--output=FILE]

The file needs no network and no script, so it can be sent by mail. The run may be live,
ended or damaged. The exit code is 0, however the run is.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

from impala_mp.cli import start


def _report() -> None:
    from absl import flags

    from impala_mp.cli import command_line

    values = flags.FlagValues()
    output = flags.DEFINE_string(
        "output",
        None,
        "File to write; default: report.html in DIR.",
        flag_values=values,
    )
    folder = command_line.parse_run(values, str(__doc__), "impala-report DIR")
    from impala_mp.monitoring import report_page

    print(report_page.write(folder, output.value))


def main() -> None:
    """Entry point of the console script."""
    start.run(_report)


if __name__ == "__main__":
    main()
