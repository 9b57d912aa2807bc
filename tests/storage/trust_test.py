"""Code of a saved run: loaded if this user has trained it, or with --trust."""

import operator
import os
import sys
import typing

import numpy as np
import pytest
import torch

from impala_mp import config as config_lib, errors
from impala_mp.cli import diagnose, evaluate, export, play
from impala_mp.config import user_code
from impala_mp.storage import crash_file, trust
from tests.support import builders


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A user's folder for state, in which nothing is recorded yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "state"


def _config(**overrides):
    return builders.impala_config(**{"environment.id": "json:loads", **overrides})


def _refused(config, match="json:loads"):
    with pytest.raises(errors.BadInput, match=rf"{match}.*Add --trust"):
        trust.admit(config, "runs/x", False)


def test_all_code_of_a_config_is_named():
    config = _config(
        **{
            "environment.id": "a.b:make, a:c:Id-v0, Catch, CartPole-v1,"
            " ale_py:ALE/Pong-v5, ale_py:getattr, minigrid:MinAtar/x, ALE/Pong-v5",
            "network.torso": "d:torso",
            "network.core": "e:core",
        }
    )
    config.network.encoders.arm = "f.g:arm"
    config.network.encoders.leg = "mlp"
    config.policies.red = {"network": {"torso": "g:torso", "core": "lstm"}}
    config.policies.blue = {"network": {"encoders": {"arm": "h:arm"}}}
    config.environment.kwargs.call = [(os.system, {1: operator.add})]
    config.environment.kwargs.dtype = np.float32
    assert [(each.field, each.name, each.module) for each in trust.names(config)] == [
        ("environment.id", "a.b:make", "a.b"),
        ("environment.id", "a:c:Id-v0", "a:c"),
        ("environment.id", "ale_py:getattr", "ale_py"),
        ("environment.id", "minigrid:MinAtar/x", "minigrid"),
        ("environment.kwargs", "_operator:add", "_operator"),
        ("environment.kwargs", "posix:system", "posix"),
        ("network.core", "e:core", "e"),
        ("network.encoders.arm", "f.g:arm", "f.g"),
        ("network.torso", "d:torso", "d"),
        ("policies.blue.network.encoders.arm", "h:arm", "h"),
        ("policies.red.network.torso", "g:torso", "g"),
    ]


def test_built_ins_and_registered_ids_load_freely(state):
    for name in ("Catch", "CartPole-v1", "ALE/Pong-v5", "ale_py:ALE/Pong-v5"):
        config = builders.impala_config(**{"environment.id": name})
        trust.admit(config, "runs/x", False)
        assert trust.record(config, "runs/x") == ""
    assert not state.exists()


def test_trust_names_everything_on_stderr(capsys):
    config = _config(**{"network.torso": "math:sin"})
    trust.admit(config, "runs/x", True)
    assert capsys.readouterr().err == (
        "--trust: runs/x imports and calls json:loads (environment.id), math:sin"
        " (network.torso).\n"
    )


def test_code_that_this_user_has_trained_is_loaded_wherever_the_run_is(state):
    _refused(_config())
    assert trust.record(_config(), "/runs/x") == ""
    again = config_lib.from_json(config_lib.to_json(_config()))
    trust.admit(again, "/elsewhere", False)
    folder = state / "impala_mp" / "trained"
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder)] == [
        0o700,
        0o700,
    ]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment.id", "json:dumps"),
        ("environment.id", "json:loads,Catch"),
        ("environment.kwargs", {"command": "touch x"}),
        ("network.torso", "json:loads"),
        ("network.encoders", {"x": "json:loads"}),
    ],
)
def test_other_code_or_arguments_are_not_what_was_trained(field, value):
    trust.record(_config(), "/runs/x")
    _refused(_config(**{field: value}), "")


def test_modules_without_a_file_are_code_too(tmp_path, monkeypatch):
    for name in ("__main__:main", "posix:system", "zipimport:x"):
        config = _config(**{"environment.id": name})
        _refused(config, name)
        trust.record(config, "/runs/x")
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            trust.admit(config, "/runs/x", False)


def test_a_module_of_the_same_name_elsewhere_is_other_code(tmp_path, monkeypatch):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my_project.py").touch()
    config = _config(**{"environment.id": "my_project:make"})
    # Nothing can be executed: the sentence that there is no such module follows.
    trust.admit(config, "runs/x", False)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "one")
        trust.record(config, "runs/x")
        trust.admit(config, "runs/x", False)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "other")
        _refused(config, "my_project:make")


def test_a_record_that_another_user_could_write_is_none(state, tmp_path):
    trust.record(_config(), "runs/x")
    own = state / "impala_mp"
    own.chmod(0o770)
    _refused(_config())
    assert "impala-eval" in trust.record(_config(), "runs/x")
    own.chmod(0o700)
    trust.admit(_config(), "runs/x", False)
    own.rename(tmp_path / "planted")
    own.symlink_to(tmp_path / "planted")
    _refused(_config())
    assert "will need --trust" in trust.record(_config(), "runs/x")


def test_the_folders_of_the_code_are_those_of_this_users_record(
    state, tmp_path, monkeypatch
):
    """Not what a run from elsewhere says."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_code, "_added", [])
    user_code.add_folder("/somewhere")
    trust.record(_config(), str(tmp_path / "run"))
    sys.path.remove("/somewhere")
    trust.admit(_config(), str(tmp_path / "other"), True)
    assert "/somewhere" not in sys.path
    trust.admit(_config(), str(tmp_path / "run"), False)
    assert sys.path[-1] == "/somewhere"


def test_a_record_is_not_written_through_a_link(state, tmp_path):
    trust.record(_config(), "runs/x")
    for file in list((state / "impala_mp" / "trained").iterdir()):
        file.unlink()
        file.symlink_to(tmp_path / "target")
        assert "will need --trust" in trust.record(_config(), "runs/x")
        assert not (tmp_path / "target").exists()
    (tmp_path / "target").touch()
    _refused(_config())


def _crash(path, config):
    kinds = typing.get_type_hints(crash_file.CrashFile)
    empty = {torch.Tensor: lambda: torch.zeros(0)}
    parts = {
        name: empty.get(kind, typing.get_origin(kind) or kind)()
        for name, kind in kinds.items()
    }
    parts |= {"config": config_lib.to_json(config), "update": 3}
    return crash_file.save(str(path), crash_file.CrashFile(**parts))


@pytest.mark.parametrize("command", [evaluate, export, play, diagnose])
def test_no_command_runs_the_code_of_a_run(tmp_path, monkeypatch, capsys, command):
    config = _config(**{"environment.id": "subprocess:getoutput"})
    config.environment.kwargs.cmd = f"touch {tmp_path}/executed"
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(config_lib.to_json(config))
    named = {evaluate: f"--workdir={run}", diagnose: _crash(tmp_path, config)}
    monkeypatch.setattr(sys, "argv", ["impala-x", named.get(command, str(run))])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "imports and calls subprocess:getoutput (environment.id)" in error
    assert "--trust" in error
    assert not (tmp_path / "executed").exists()


def test_the_current_folder_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    user_code.add_current_folder()
    user_code.add_current_folder()
    assert sys.path.count(str(tmp_path)) == 1
    assert sys.path[-1] == str(tmp_path)
