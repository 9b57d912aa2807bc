"""impala-export: writes the greedy policy of a run as one file.

    impala-export DIR [--format=torch|onnx] [--output=FILE]

FILE maps the environment's observations to its actions. FILE.json describes inputs and
outputs.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

from absl import flags

from impala_mp.cli import command_line

FLAGS = flags.FlagValues()
_FORMAT = flags.DEFINE_enum(
    "format",
    "torch",
    ["torch", "onnx"],
    "torch: program for torch.export.load (.pt2); onnx: needs impala_mp[onnx].",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "File to write; default: policy.pt2 or policy.onnx in DIR.",
    flag_values=FLAGS,
)
_TRUST = command_line.define_trust(FLAGS)


def _export() -> None:
    folder = command_line.parse_folder(FLAGS, str(__doc__), "impala-export DIR")
    from impala_mp.evaluation import export

    for path in export.export(folder, _FORMAT.value, _OUTPUT.value, _TRUST.value):
        print(path)


def main() -> None:
    """Entry point of the console script."""
    command_line.run(_export)


if __name__ == "__main__":
    main()
