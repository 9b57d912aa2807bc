"""The floors of the house: who may import whom, and how big a room may be."""

import ast
import functools
import graphlib
import json
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_ROLES = {"actor", "inference", "batcher", "learner", "evaluator"}

# A package stands for all that is in it. Not every module has been written yet.
_FLOORS = {
    0: {
        "impala_mp",  # the package itself
        "algorithm_settings",
        "categorical",
        "config",
        "core_settings",
        "distributions",
        "elements",
        "errors",
        "gaussian",
        "hyperparameters",
        "losses",
        "nest",
        "random_actions",
        "replay_settings",
        "schedules",
        "seeding",
        "specs",
        "sum_tree",
        "tasks",
        "types",
        "validation",
        "vtrace",
    },
    1: {
        "actor_critic",
        "agent",
        "algorithm",
        "algorithms",
        "bottleneck",
        "checkpoint",
        "control_block",
        "cores",
        "crash_file",
        "cuda_graph",
        "curves",
        "display",
        "delay_line",
        "descriptors",
        "doorbell",
        "encoders",
        "environments",
        "episodes",
        "factories",
        "footprint",
        "greedy_policy",
        "host_copy",
        "impact_algorithm",
        "inference_block",
        "initialisers",
        "lag_histogram",
        "learner_record",
        "life_pipe",
        "mailbox",
        "memory_order",
        "metrics",
        "networks",
        "normalisation",
        "off_policy",
        "optimizers",
        "output",
        "parameter_store",
        "parameters",
        "placement",
        "popart",
        "project_template",
        "profiling",
        "publisher",
        "record",
        "replay",
        "shared_memory",
        "slot_rows",
        "spectators",
        "target_network",
        "trajectory_ring",
        "video",
        "vtrace_algorithm",
        "workdir",
    },
    2: _ROLES,
    3: {
        "accounting",
        "calibration",
        "child_process",
        "command_line",
        "conclusion",
        "contract",
        "diagnosis",
        "drift",
        "ending",
        "evaluation",
        "exporting",
        "fork_server",
        "health_report",
        "nonfinite",
        "launch",
        "live_control",
        "lockstep",
        "playing",
        "preflight",
        "preload",
        "program",
        "random_play",
        "reporting",
        "saved_run",
        "supervisor",
        "training",
        "workers",
    },
    4: {"ctl", "evaluate", "export", "new", "play", "replay_crash", "status", "train"},
}
_MAX_FILE_LINES = 400
_MAX_BINARY_LINES = 79
_MAX_FUNCTION_LINES = 60
_LONG_FUNCTIONS = {"impala_mp.config.get_base_config"}  # a table of fields


@functools.cache
def _paths():
    """{dotted module name: its file}."""
    paths = {}
    package = _ROOT / "impala_mp"
    for path in sorted(package.rglob("*.py")):
        if path.is_relative_to(package / "template"):
            continue  # what `impala-new` writes: data, that nobody here imports
        parts = path.relative_to(_ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        paths[name] = path
    return paths


@functools.cache
def _tree(name):
    return ast.parse(_paths()[name].read_text())


def _room(name):
    """The name by which a module stands on a floor: "environments" for all of those."""
    return (name.split(".") + [""])[1] or name


def _floor(name):
    for floor, rooms in _FLOORS.items():
        if _room(name) in rooms:
            return floor
    return pytest.fail(
        f"{name} is on no floor: add {_room(name)!r} to _FLOORS in {__file__}, on the"
        " lowest floor that holds all it imports."
    )


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
    assert {"impala_mp", "impala_mp.vtrace", "impala_mp.train"} <= set(_paths())
    assert "impala_mp.environments.factory" in _imports("impala_mp.environments")


def test_no_room_is_on_two_floors():
    rooms = [room for floor in _FLOORS.values() for room in floor]
    assert len(set(rooms)) == len(rooms)


@_each_module
def test_imports_go_down_or_stay(name):
    for other in _imports(name):
        assert _floor(other) <= _floor(name), (
            f"{name} (floor {_floor(name)}) imports {other} (floor {_floor(other)}):"
            " hand it in, or move what it needs further down."
        )


@_each_module
def test_roles_do_not_import_each_other(name):
    if _room(name) in _ROLES:
        others = {other for other in _imports(name) if _room(other) in _ROLES}
        assert not others, f"{name} imports {others}: a role is handed another."


def test_no_import_cycles():
    graph = {name: _imports(name) for name in _paths()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@_each_module
def test_files_are_short(name):
    limit = _MAX_BINARY_LINES if _floor(name) == 4 else _MAX_FILE_LINES
    lines = len(_paths()[name].read_text().splitlines())
    assert lines <= limit, (
        f"{name} has {lines} lines, more than {limit}: cut it in two."
    )


@_each_module
def test_functions_are_short(name):
    for node in ast.walk(_tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = f"{name}.{node.name}"
            lines = node.end_lineno - node.lineno + 1
            assert lines <= _MAX_FUNCTION_LINES or function in _LONG_FUNCTIONS, (
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


def test_importing_the_lower_floors_does_nothing():
    low = [name for name in _paths() if _floor(name) <= 1]
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, *low],
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(result.stdout) == {
        "torch threads": 3,
        "Python threads": 1,
        "flags of": [],
        "modules": sorted(low),
    }


def test_the_command_line_is_read_before_torch_is_imported():
    """torch reads the environment that `launch` sets, and takes a second."""
    code = "import sys, impala_mp.train, impala_mp.command_line; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "impala_mp.command_line" in done.stdout.split()
    assert "torch" not in done.stdout.split()
