"""impala-export: writes the greedy policy of a run as one file.

    impala-export DIR [--format=torch|onnx] [--output=FILE] [--policy=NAME]

FILE maps the environment's observations to its actions. FILE.json describes inputs and
outputs.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

from impala_mp.cli import start


def _export() -> None:
    from absl import flags

    from impala_mp.cli import command_line

    values = flags.FlagValues()
    kind = flags.DEFINE_enum(
        "format",
        "torch",
        ["torch", "onnx"],
        "torch: program for torch.export.load (.pt2); onnx: needs impala_mp[onnx].",
        flag_values=values,
    )
    output = flags.DEFINE_string(
        "output",
        None,
        "File to write; default: policy.pt2 or policy.onnx in DIR, or NAME.pt2.",
        flag_values=values,
    )
    policy = flags.DEFINE_string(
        "policy", "", "Which of several policies to write.", flag_values=values
    )
    which = command_line.define_checkpoint(values)
    trust = command_line.define_trust(values)
    folder = command_line.parse_run(values, str(__doc__), "impala-export DIR")
    from impala_mp.evaluation import export

    checkpoint = command_line.checkpoint(which.value)
    for path in export.export(
        folder, kind.value, output.value, trust.value, checkpoint, policy.value
    ):
        print(path)


def main() -> None:
    """Entry point of the console script."""
    start.run(_export)


if __name__ == "__main__":
    main()
