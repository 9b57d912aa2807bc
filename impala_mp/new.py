"""impala-new: writes a folder with an environment, a network and an experiment.

    impala-new DIR [--name=my_project]

They train as they are, and are meant to be changed. DIR/README.md says how to go on.
"""

import os

from absl import flags

from impala_mp import command_line, project_template

FLAGS = flags.FlagValues()
_NAME = flags.DEFINE_string(
    "name", "my_project", "Of the Python package in DIR.", flag_values=FLAGS
)


def _new() -> None:
    folder = command_line.parse_folder(FLAGS, str(__doc__), "impala-new DIR")
    for path in project_template.write(folder, _NAME.value):
        print(path)
    print(
        f"Go on with: cd {folder} && pytest; then {os.path.join(folder, 'README.md')}"
    )


def main() -> None:
    """The console script."""
    command_line.run(_new)


if __name__ == "__main__":
    main()
