"""impala-export: writes the greedy policy of a run as one file.

    impala-export DIR [--format=torch|onnx] [--output=FILE]

FILE takes observations as the environment gives them and gives actions as it takes
them; FILE.json says what goes in and out.
"""

import os
import sys

from absl import flags

from impala_mp.cli import command_line

FLAGS = flags.FlagValues()
_FORMAT = flags.DEFINE_enum(
    "format",
    "torch",
    ["torch", "onnx"],
    "torch: a program for torch.export.load (.pt2); onnx: needs impala_mp[onnx].",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The file; default: policy.pt2 or .onnx in DIR.", flag_values=FLAGS
)


def _export() -> None:
    folder = command_line.parse_folder(FLAGS, str(__doc__), "impala-export DIR")
    sys.path.insert(0, os.getcwd())  # so that module:factory finds the user's modules
    from impala_mp.evaluation import export

    for path in export.export(folder, _FORMAT.value, _OUTPUT.value):
        print(path)


def main() -> None:
    """The console script."""
    command_line.run(_export)


if __name__ == "__main__":
    main()
