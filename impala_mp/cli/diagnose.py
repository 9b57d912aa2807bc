"""impala-diagnose: repeats a skipped update and finds its first non-finite tensor.

impala-diagnose runs/x/crashes/1234.pt
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import os

from impala_mp.cli import start


def _diagnose() -> None:
    from absl import flags

    from impala_mp import errors
    from impala_mp.cli import command_line
    from impala_mp.config import fields

    values = flags.FlagValues()
    file = flags.DEFINE_string(
        "file", None, "File in the crashes folder of a run.", flag_values=values
    )
    trusted = command_line.define_trust(values)
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--file={sys.argv[1]}"  # impala-diagnose FILE
    command_line.parse(values, str(__doc__))
    if not file.value:
        raise errors.BadInput("no file is given. Name one in a run's crashes folder.")
    from impala_mp.evaluation import diagnosis
    from impala_mp.storage import crash_file, trust

    crash = crash_file.load(file.value)
    trust.admit(fields.from_json(crash.config), file.value, trusted.value)
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
