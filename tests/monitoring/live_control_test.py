"""Questions of impala-ctl and their answers, without processes."""

import json
import os

import pytest

from impala_mp.monitoring import live_control
from impala_mp.storage import mailbox
from tests.support import builders

# Questions and answers, without processes.


class _Answering:
    """The supervisor's side, whose ticks the test calls."""

    def __init__(self, path, **overrides):
        config = builders.config(**overrides)
        shared = builders.shared(config, path)
        self.control = shared.control
        self.said = []
        self.live = live_control.LiveControl(
            [live_control.of(shared)], str(path), self.said.append
        )
        self.path = path

    def ask(self, message):
        """What the file of the answer holds after the next tick."""
        name = f"{len(list(self.path.glob('questions/*'))):03d}"
        file = self.path / "questions" / f"{name}.question"
        file.write_text(message if isinstance(message, str) else json.dumps(message))
        self.live.tick(agent_steps=600)
        assert not file.exists()
        return json.loads((self.path / "questions" / f"{name}.answer").read_text())


def test_epsilon_needs_a_uniform_distribution(tmp_path):
    run = _Answering(tmp_path, **{"environment.id": "Pendulum-v1"})
    assert "cannot explore a Box" in run.ask({"set": {"epsilon": 0.1}})["refused"]
    assert run.control.get("epsilon") == 0.0
    assert "lines" in run.ask({"set": {"epsilon": 0.0, "temperature": 2.0}})


def test_what_a_learner_of_action_values_does_not_read_is_refused(tmp_path):
    run = _Answering(tmp_path, algorithm="dqn")
    refused = run.ask({"set": {"entropy_cost": 0.02}})["refused"]
    assert refused.startswith("entropy_cost has no effect on this run")
    assert refused.endswith("Set one of epsilon, learning_rate_factor.")
    assert "lines" in run.ask({"set": {"epsilon": 0.1}})
    assert run.control.get("epsilon") == 0.1


def test_questions_and_answers(tmp_path):
    run = _Answering(tmp_path, **{"schedules.epsilon": "constant(0.25)"})
    assert run.ask({"get": ["entropy_cost", "epsilon"]})["lines"] == [
        "entropy_cost = 0.01 (config)",
        "epsilon = 0.25 (schedule constant(0.25))",
    ]
    assert len(run.ask({"get": []})["lines"]) == 7
    changed = {"entropy_cost": 0.02, "clip_c_threshold": 0.5}
    sentence = "entropy_cost changes from 0.01 to 0.02 (impala-ctl)."
    assert run.ask({"set": changed})["lines"][0] == sentence
    assert run.said[0] == sentence
    assert run.control.overrides() == changed
    assert run.control.num_saves == 1
    assert run.live.not_from_config() == [
        "epsilon = 0.25 (schedule constant(0.25))",
        "entropy_cost = 0.02 (impala-ctl)",
        "clip_c_threshold = 0.5 (impala-ctl)",
    ]
    run.ask({"unset": ["entropy_cost"]})
    assert run.control.overrides() == {"clip_c_threshold": 0.5}
    lines = [json.loads(x) for x in (tmp_path / "changes.jsonl").open()]
    assert [(x["name"], x["from"], x["to"], x["by"]) for x in lines] == [
        ("entropy_cost", 0.01, 0.02, "impala-ctl"),
        ("clip_c_threshold", 1.0, 0.5, "impala-ctl"),
        ("entropy_cost", 0.02, 0.01, "config"),
    ]
    assert {x["agent_steps"] for x in lines} == {600}


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"set": {"entropy_cots": 1.0}}, "Did you mean 'entropy_cost'?"),
        ({"get": ["epsilom"]}, "Did you mean 'epsilon'?"),
        ({"unset": ["x"]}, "there is no live value 'x'"),
        ({"set": {"epsilon": 1.5}}, "epsilon (1.5) must be between 0 and 1"),
        ({"set": {"epsilon": "1"}}, "epsilon ('1') must be"),
        ({"set": {"entropy_cost": 0.5, "temperature": 0.0}}, "between 0.001 and 1000"),
        ({"set": {"clip_c_threshold": 2.0}}, "(2) must not exceed"),
        ({"set": {"entropy_cost": float("nan")}}, "(nan) must be finite"),
        ({"put": {}}, "is not a request"),
        ("{not JSON", "is not a request"),
        ("[" * 100_000, "is not a request"),
        ("9" * 100_000, "is not a request"),
        ('{"get": [' + "[" * 400 + "]" * 400 + "]}", "there is no live value [[["),
        ('{"get": [{}, 7, null]}', "there is no live value {}"),
        ({"get": ["x" * 60_000]}, "there is no live value 'xxx"),
        ({"get": ["\ud800"]}, "there is no live value '\\ud800'"),
        ('{"set": {"epsilon": ' + "[" * 400 + "]" * 400 + "}}", "must be a number"),
        ({"set": {"clip_rho_threshold": 10**400}}, "must be a number"),
        ({"set": {"epsilon": True}}, "epsilon (True) must be a number"),
        ({"set": {"epsilon": None}}, "epsilon (None) must be a number"),
        (" " * 70_000 + '{"get": []}', "is not a request"),
        (f'{{"put": {"[" * 900 + "]" * 900}}}', "is not a request"),
    ],
)
def test_a_refused_question_changes_nothing(tmp_path, message, sentence):
    run = _Answering(tmp_path)
    assert sentence in run.ask(message)["refused"]
    assert run.control.overrides() == {}
    assert run.said == []


def test_a_lower_threshold_cannot_be_taken_back_under_a_higher_one(tmp_path):
    run = _Answering(tmp_path)
    run.ask({"set": {"clip_rho_threshold": 3.0, "clip_c_threshold": 2.0}})
    assert "must not exceed" in run.ask({"unset": ["clip_rho_threshold"]})["refused"]
    assert run.control.get("clip_rho_threshold") == 3.0
    run.ask({"unset": ["clip_rho_threshold", "clip_c_threshold"]})
    assert run.control.overrides() == {}


def test_nothing_is_changed_when_the_run_is_stopping(tmp_path):
    run = _Answering(tmp_path)
    run.control.stop()
    assert "is stopping" in run.ask({"set": {"epsilon": 0.5}})["refused"]
    assert run.ask({"get": ["epsilon"]})["lines"]
    assert run.control.overrides() == {}


def test_only_files_of_this_user_are_questions(tmp_path, monkeypatch):
    """A FIFO in place of one would hang a reader, a folder cannot be removed."""
    run = _Answering(tmp_path)
    folder = tmp_path / "questions"
    request = json.dumps({"set": {"epsilon": 0.5}})
    (tmp_path / "elsewhere").write_text(request)
    os.mkfifo(folder / "1.question")
    (folder / "2.question").mkdir()
    (folder / "3.question").symlink_to(tmp_path / "elsewhere")
    (folder / "4.question").symlink_to(folder / "4.question")
    (folder / "5.question").write_bytes(b"\0\xff")
    (folder / "6.question").write_text(json.dumps({"get": ["epsilon"]}))
    (folder / "5.answer").mkdir()
    with pytest.raises(OSError, match="5.answer"):
        run.live.tick(agent_steps=600)
    for number in (1, 3, 4):
        answer = json.loads((folder / f"{number}.answer").read_text())
        assert "None is not a request" in answer["refused"]
    answer = json.loads((folder / "6.answer").read_text())
    assert answer["lines"] == ["epsilon = 0 (config)"]
    run.live.tick(agent_steps=600)  # the folder is still there
    mailbox.Mailbox(str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "None is not a request" in run.ask(json.loads(request))["refused"]
    assert run.control.overrides() == {}


def test_a_planted_link_takes_no_line_of_the_log(tmp_path):
    run = _Answering(tmp_path)
    (tmp_path / "victim").write_text("")
    (tmp_path / "changes.jsonl").symlink_to(tmp_path / "victim")
    assert run.ask({"set": {"epsilon": 0.5}})["lines"] == run.said[:1]
    assert "the change is not logged" in run.said[1]
    assert (tmp_path / "victim").read_text() == ""
