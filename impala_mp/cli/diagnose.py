"""impala-diagnose: repeats a skipped update and finds its first non-finite tensor.

    impala-diagnose FILE

FILE is in the crashes folder of a run, such as runs/x/crashes/1234.pt.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import os

from impala_mp.cli import start


def _diagnose() -> None:
    from absl import flags

    from impala_mp.cli import command_line
    from impala_mp.config import fields

    values = flags.FlagValues()
    trusted = command_line.define_trust(values)
    path = command_line.parse_path(
        values, str(__doc__), "impala-diagnose DIR/crashes/UPDATE.pt", "file"
    )
    from impala_mp.evaluation import diagnosis
    from impala_mp.storage import crash_file, trust

    crash = crash_file.load(path)
    trust.admit(fields.from_json(crash.config), path, trusted.value)
    same = diagnosis.Diagnosis(crash).repeats()
    print(
        f"Update {crash.update} on {crash.device}:"
        f" {'the same again, bit for bit' if same else 'a different result'}."
    )
    print(f"First: {diagnosis.Diagnosis(crash).culprit()}.")


def main() -> None:
    """Entry point of the console script."""
    if os.path.basename(sys.argv[0]) == "impala-replay":
        print("impala-replay is now called impala-diagnose.", file=sys.stderr)
    start.run(_diagnose)


if __name__ == "__main__":
    main()
