"""The layout: which folder may import which, and how big a file may be."""

import ast
import functools
import graphlib
import json
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_GROUND = "errors types nest specs seeding"

# The import matrix: what each folder may import beside itself and the packages of
# others. It runs one way: a folder imports only folders above it in this table.
_MATRIX = {
    "config": "errors",
    "networks": f"{_GROUND} config",
    "environments": f"{_GROUND} config",
    "transport": f"{_GROUND} config",
    "storage": f"{_GROUND} config",
    "algorithms": f"{_GROUND} config networks",
    "workers": f"{_GROUND} config networks environments transport storage algorithms",
    "monitoring": "errors specs config transport storage workers",
    "evaluation": f"{_GROUND} config networks environments storage algorithms workers"
    " monitoring",
    "runtime": f"{_GROUND} config networks environments transport storage algorithms"
    " workers monitoring evaluation",
    "cli": "errors config storage monitoring evaluation runtime",
    "api": f"{_GROUND} config networks environments storage workers monitoring"
    " evaluation runtime cli",
}
_MATRIX |= dict.fromkeys(_GROUND.split(), _GROUND)
# Processes, and the batcher: each is handed the others.
_ROLES = {
    *("actor", "served_actor", "inference_server", "batcher", "learner"),
    "evaluator",
}
_SUBCLASSES = {("served_actor", "actor")}  # an actor too: it shares its ring's half
# Importing these does nothing: no thread counts, no threads, no flags.
_STILL = {"config", "networks", "environments", "transport", "storage", "algorithms"}

_ROOT_MODULE = "impala_mp"
_MAX_FILE_LINES = 400
_MIN_FILE_LINES = 60  # of a file with a single importer
_FACES = {
    "impala_mp.algorithms.registry",
    "impala_mp.monitoring.metric_docs",
}  # where a newcomer looks a name up
_MAX_FUNCTION_LINES = 60


@functools.cache
def _paths():
    """{dotted module name: its file}."""
    paths = {}
    package = _ROOT / "impala_mp"
    for path in sorted(package.rglob("*.py")):
        if path.is_relative_to(package / "cli" / "template"):
            continue  # data of `impala-new`: no module imports it
        parts = path.relative_to(_ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        paths[name] = path
    return paths


@functools.cache
def _tree(name):
    return ast.parse(_paths()[name].read_text())


def _folder(name):
    """The folder of a module, or a ground module's own name."""
    return (name.split(".") + [""])[1]


def _imported(node):
    """Full names that an import statement may mean, the likelier first."""
    if isinstance(node, ast.Import):
        return [[alias.name] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, (
            f"line {node.lineno}: a relative import; name the module"
        )
        # `from impala_mp import nest` is the module; `... .types import Nest` is not.
        return [[f"{node.module}.{a.name}", node.module] for a in node.names]
    return []


@functools.cache
def _imports(name):
    """Modules of the package that a module imports, in functions too."""
    found = set()
    for node in ast.walk(_tree(name)):
        for candidates in _imported(node):
            found |= set([c for c in candidates if c in _paths()][:1])
    return found


def _each_module(function):
    return pytest.mark.parametrize("name", list(_paths()))(function)


def test_there_is_something_to_check():
    known = {"impala_mp", "impala_mp.algorithms.vtrace", "impala_mp.cli.train"}
    assert known <= set(_paths())
    assert "impala_mp.environments.vector" in _imports("impala_mp.environments.factory")


def test_every_folder_has_a_row_in_the_matrix():
    folders = {_folder(name) for name in _paths()} - {""}
    assert folders == set(_MATRIX)


def test_the_matrix_runs_one_way():
    above = set(_GROUND.split())
    for folder, allowed in _MATRIX.items():
        if folder not in above:
            assert set(allowed.split()) <= above, folder
            above.add(folder)


@_each_module
def test_imports_follow_the_matrix(name):
    folder = _folder(name)
    if name == _ROOT_MODULE:  # for type checkers; it imports at first use
        assert {_folder(other) for other in _imports(name)} <= {"api", "errors"}
        return
    for other in _imports(name) - {_ROOT_MODULE}:  # the version
        its = _folder(other)
        assert its == folder or its in _MATRIX.get(folder, "").split(), (
            f"{name} imports {other}: hand it in, or move what it needs."
        )


@_each_module
def test_roles_do_not_import_each_other(name):
    role = name.rpartition(".")[2]
    if _folder(name) == "workers" and role in _ROLES:
        others = {other.rpartition(".")[2] for other in _imports(name)} & _ROLES
        others = {other for other in others if (role, other) not in _SUBCLASSES}
        assert not others, f"{name} imports {others}: a role is handed another."


def test_no_import_cycles():
    # The root imports for type checkers, and others its version.
    graph = {name: _imports(name) - {_ROOT_MODULE} for name in _paths()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_only_the_face_of_the_config_is_in_an_init():
    """`cli` starts without torch: what a folder's __init__ imports, everyone does."""
    for name, path in _paths().items():
        if path.name == "__init__.py" and name not in ("impala_mp", "impala_mp.config"):
            assert path.read_text() == "", name


def _num_lines(name):
    return len(_paths()[name].read_text().splitlines())


@_each_module
def test_files_are_short(name):
    lines = _num_lines(name)
    assert lines <= _MAX_FILE_LINES, (
        f"{name} has {lines} lines, more than {_MAX_FILE_LINES}: cut it in two."
    )


@_each_module
def test_files_are_worth_their_name(name):
    importers = [other for other in _paths() if name in _imports(other)]
    if name == _ROOT_MODULE:
        return
    if len(importers) == 1 and _folder(name) != "cli" and name not in _FACES:
        assert _num_lines(name) >= _MIN_FILE_LINES, (
            f"{name} has {_num_lines(name)} lines and one importer, {importers[0]}:"
            " put it there."
        )


@_each_module
def test_functions_are_short(name):
    for node in ast.walk(_tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = f"{name}.{node.name}"
            lines = node.end_lineno - node.lineno + 1
            assert lines <= _MAX_FUNCTION_LINES, (
                f"{function} has {lines} lines, more than {_MAX_FUNCTION_LINES}: give"
                " its parts names."
            )


_IMPORT_ALL = """
import importlib, json, sys, threading
import torch
from absl import flags

torch.set_num_threads(3)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({
    "torch threads": torch.get_num_threads(),
    "Python threads": threading.active_count(),
    "flags of": [
        module
        for module in flags.FLAGS.flags_by_module_dict()
        if module.startswith("impala_mp")
    ],
    "modules": sorted(
        module for module in sys.modules if module.startswith("impala_mp")
    ),
}))
"""


def test_importing_a_library_module_does_nothing():
    still = [n for n in _paths() if _folder(n) in {"", *_GROUND.split(), *_STILL}]
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, *still],
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout) == {
        "torch threads": 3,
        "Python threads": 1,
        "flags of": [],
        "modules": sorted(still),
    }


@pytest.mark.parametrize("module", ["cli.train", "cli.ctl", "monitoring.health"])
def test_a_command_starts_without_torch(module):
    """torch takes a second, and reads the environment that `launch` sets."""
    names = f"impala_mp.{module}, impala_mp.cli.command_line, impala_mp.cli.status"
    code = f"import sys, {names}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "impala_mp.cli.command_line" in done.stdout.split()
    assert "torch" not in done.stdout.split()
