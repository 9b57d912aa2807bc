"""impala-ctl against a training in processes of its own."""

import json
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from impala_mp import config as config_lib
from impala_mp.cli import ctl
from tests.support import runs


class _Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(monkeypatch, capsys):
    """The command in this process: importing torch takes longer than all it does."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["impala-ctl", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            ctl.main()
        except SystemExit as end:
            code = end.code
        return _Done(code, *capsys.readouterr())

    return command


def _said(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _refused(done, sentence):
    assert sentence in done.stderr
    assert done.returncode == 2


_LONG = runs.LONG


def test_a_change_takes_hold_and_outlives_the_run(start, call):
    run = start(_LONG, "--config.schedules.epsilon=linear(0.5, 0.1, 1e9)")
    folder = run.workdir
    run.until(run.records)
    assert _said(call(folder, "get", "entropy_cost")) == [
        "entropy_cost = 0.003 (config)"
    ]
    sentence = "entropy_cost changes from 0.003 to 0.03 (impala-ctl)."
    said = _said(call(folder, "set", "entropy_cost=0.03", "epsilon=1"))
    assert said[0] == sentence
    assert "epsilon changes from 0." in said[1]
    assert sentence in run.text()
    # In force when the command has ended: the newest record at most is from before.
    before = len(run.records())
    record = run.until(lambda: run.records()[before + 1 :])[0]
    assert (record["live/entropy_cost"], record["live/epsilon"]) == (0.03, 1.0)
    assert record["live/temperature"] == 1.0
    health = json.loads((folder / "health.json").read_text())
    assert health["live"] == [
        "epsilon = 1 (impala-ctl)",
        "entropy_cost = 0.03 (impala-ctl)",
    ]
    _refused(
        call(folder, "set", "epsilon=1.5"), "epsilon (1.5) must be between 0 and 1"
    )
    _refused(call(folder, "set", "epsilom=1"), "Did you mean 'epsilon'?")
    assert _said(call(folder, "unset", "epsilon"))
    run.until(lambda: run.records()[-1]["live/epsilon"] < 0.51)
    # Checkpointed without being asked: a run that is killed keeps it.
    run.until(lambda: run.records()[-1]["health/checkpoint_update"] > 0)
    run.process.send_signal(signal.SIGKILL)
    run.wait()
    _refused(call(folder, "set", "epsilon=1"), "is not alive")
    again = start(_LONG, "--config.schedules.epsilon=linear(0.5, 0.1, 1e9)")
    again.until(lambda: "entropy_cost stays 0.03, as set by impala-ctl" in again.text())
    count = len(again.records())
    again.until(lambda: len(again.records()) > count)
    assert again.records()[-1]["live/entropy_cost"] == 0.03
    assert again.records()[-1]["live/epsilon"] < 0.51
    again.process.send_signal(signal.SIGTERM)
    again.wait()


def test_a_run_that_does_not_answer(start, monkeypatch, capsys):
    run = start(_LONG)
    run.until_running()
    run.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(ctl, "_TIMEOUT_SECS", 0.3)  # and the interval of records
    monkeypatch.setattr(
        sys, "argv", ["impala-ctl", str(run.workdir), "set", "epsilon=1"]
    )
    with pytest.raises(SystemExit) as ended:
        ctl.main()
    assert ended.value.code == 1
    assert "did not answer within 0.5 s" in capsys.readouterr().err
    assert not list((run.workdir / "questions").glob("*.question"))
    run.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "a folder and a command are required"),
        (["nowhere", "get"], "nowhere has no config.json"),
        (["DIR", "get"], "is not alive"),
        (["DIR", "set"], "is not a command"),
        (["DIR", "unset"], "is not a command"),
        (["DIR", "put", "epsilon=1"], "is not a command"),
        (["DIR", "set", "epsilon"], "'epsilon' is not NAME=VALUE"),
        (["DIR", "set", "epsilon=much"], "'epsilon=much' is not NAME=VALUE"),
    ],
)
def test_commands_are_refused(tmp_path, call, arguments, sentence):
    text = config_lib.to_json(config_lib.get_base_config())
    pathlib.Path(tmp_path / "config.json").write_text(text)
    _refused(call(*(tmp_path if a == "DIR" else a for a in arguments)), sentence)


def test_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "impala_mp.cli.ctl", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "impala-ctl DIR set NAME=VALUE" in _said(done)[3]
