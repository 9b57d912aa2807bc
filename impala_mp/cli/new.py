"""impala-new: writes a folder with an environment, a network and an experiment.

    impala-new DIR [--name=my_project] [--observations=numbers | dict | pixels]
    impala-new DIR --game

They train unchanged and are a start for your own. DIR/README.md lists the next steps.
With --game the environment is a game of two players that see numbers.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))  # `python -m` puts the current folder first

import contextlib
import importlib.machinery
import keyword
import os
import pathlib
import re
import shlex

from impala_mp import errors
from impala_mp.cli import start

# Names in the template.
_PLACEHOLDER, _PLACEHOLDER_CLASS = "my_project", "MyProject"
_TEMPLATE = pathlib.Path(__file__).parent / "template"
_TAKEN = ("experiment", "impala_mp")
# A file of the template whose name ends in one of them is for these observations only.
_OBSERVATIONS = ("numbers", "dict", "pixels")
_GAME = "game"  # numbers as well


def write(
    folder: str,
    name: str = _PLACEHOLDER,
    observations: str = _OBSERVATIONS[0],
    game: bool = False,
) -> list[str]:
    """Creates the folder with a package called `name`; returns its files.

    Raises:
      BadInput: the folder is not empty or cannot be written, `name` is not a package
        name, or there is no environment, or no game, with these observations. Nothing
        is left behind.
    """
    _check_name(name)
    if observations not in _OBSERVATIONS:
        raise errors.BadInput(
            f"--observations={observations} is unknown. Choose among"
            f" {', '.join(_OBSERVATIONS)}."
        )
    if game and observations != _OBSERVATIONS[0]:
        raise errors.BadInput(
            f"--observations={observations} does not go with --game, whose players see"
            " numbers. Leave out one of them."
        )
    chosen = {"environment": _GAME if game else observations, "network": observations}
    files = dict(
        _renamed(source, name, kind, game)
        for source in _sources()
        for stem, _, kind in [source.stem.partition("_")]
        if chosen.get(stem, kind) == kind
    )
    made: list[pathlib.Path] = []
    try:
        return _write_all(pathlib.Path(folder), files, made)
    except OSError as error:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                remove = path.rmdir if path.is_dir() else path.unlink
                remove()
        raise errors.BadInput(
            f"{folder} cannot be written ({error}). Name another folder."
        ) from error


def _check_name(name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise errors.BadInput(
            f"--name={name} cannot be the name of a package. Use lower-case letters,"
            " digits and _."
        )
    elsewhere = [path for path in sys.path if path not in ("", os.getcwd())]
    if (
        name in (*_TAKEN, *sys.stdlib_module_names)
        or importlib.machinery.PathFinder.find_spec(name, elsewhere) is not None
    ):
        raise errors.BadInput(
            f"--name={name} is an existing module. Choose another name."
        )


def _sources() -> list[pathlib.Path]:
    return sorted(
        path
        for path in _TEMPLATE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def _renamed(source: pathlib.Path, name: str, kind: str, game: bool) -> tuple[str, str]:
    """Returns path and text of a file in the project."""
    class_name = "".join(word.capitalize() for word in name.split("_"))

    def renamed(text: str) -> str:
        if game:  # a class, because Gymnasium has no ids of games
            text = text.replace(f"{_PLACEHOLDER_CLASS}-v0", _PLACEHOLDER_CLASS)
        return text.replace(_PLACEHOLDER, name).replace(_PLACEHOLDER_CLASS, class_name)

    relative = source.relative_to(_TEMPLATE)
    is_choice = kind in (*_OBSERVATIONS, _GAME)
    stem = relative.stem.removesuffix(f"_{kind}") if is_choice else relative.stem
    path = relative.with_name(stem + relative.suffix)
    return renamed(str(path)), renamed(source.read_text())


def _write_all(
    root: pathlib.Path, files: dict[str, str], made: list[pathlib.Path]
) -> list[str]:
    """Writes files into an empty or new folder; adds to `made` all that is new."""
    if root.exists() and not root.is_dir():
        raise errors.BadInput(f"{root} is a file. Name a new folder.")
    if root.is_dir() and any(root.iterdir()):
        raise errors.BadInput(f"{root} is not empty. Name a new folder.")
    targets = [root / path for path in files]
    for target, text in zip(targets, files.values(), strict=True):
        for folder in reversed(target.parents):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        made.append(target)
        target.write_text(text)
    return [str(target) for target in targets]


def _new() -> None:
    from absl import flags

    from impala_mp.cli import command_line

    values = flags.FlagValues()
    named = flags.DEFINE_string(
        "name", _PLACEHOLDER, "Name of the Python package in DIR.", flag_values=values
    )
    observations = flags.DEFINE_string(
        "observations",
        _OBSERVATIONS[0],
        f"What the environment shows: {', '.join(_OBSERVATIONS)}.",
        flag_values=values,
    )
    game = flags.DEFINE_boolean(
        "game", False, "Write a game of two players.", flag_values=values
    )
    folder = command_line.parse_path(values, str(__doc__), "impala-new DIR")
    for path in write(folder, named.value, observations.value, game.value):
        print(path)
    place = shlex.quote(folder)
    print(f"Next: cd {place} && impala-train --config=experiment.py")
    print(f"All commands are in {os.path.join(folder, 'README.md')}.")


def main() -> None:
    """Entry point of the console script."""
    start.run(_new)


if __name__ == "__main__":
    main()
