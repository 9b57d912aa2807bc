"""Live hyperparameters in mid-run: in the data at once, exact, and no false alarm."""

import functools
import itertools
import json
import os

import numpy as np
import pytest
import torch

from impala_mp import errors, nest, types
from impala_mp.algorithms import base, vtrace
from impala_mp.monitoring import live_control
from impala_mp.storage import checkpoint, mailbox, workdir
from tests.support import builders, lockstep_runs, served as served_lib, vtrace_twin

_UNROLL = 12
_LSTM = {
    "environment.id": "tests.support.short_cartpole:ShortCartPole-v0",
    "network.core": "lstm",
    "unroll_length": _UNROLL,
}
# Agent step of the unroll: what is set before it.
_CHANGES = {
    3: {"epsilon": 1.0},
    6: {"epsilon": 0.0, "temperature": 3.0},
    8: {"epsilon": 0.4},
    10: {"epsilon": 0.0, "temperature": 1.0},
}


def _in_force():
    """The (epsilon, temperature) of each row, by the table."""
    now, rows = {"epsilon": 0.0, "temperature": 1.0}, []
    for t in range(_UNROLL):
        now.update(_CHANGES.get(t, {}))
        rows.append((now["epsilon"], now["temperature"]))
    return rows


def _before_rows(one, actions):
    """Calls `actions[t]()` before row t of the next unroll of `one`."""
    step, rows = type(one._environment).step, itertools.count(1)

    def step_and_act(action):
        result = step(one._environment, action)
        actions.get(next(rows), lambda: None)()
        return result

    one._environment.step = step_and_act


def _change_between_rows(parts, one):
    """A person changes values while `one` acts."""
    override = parts.shared.control.override
    _before_rows(one, {t: functools.partial(override, c) for t, c in _CHANGES.items()})


def _log_mixture(logits, epsilon, temperature):
    """float64, term by term."""
    p = np.exp(logits / temperature - (logits / temperature).max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log((1.0 - epsilon) * p + epsilon / logits.shape[-1])


def _unrolled(policy, batch):
    with torch.no_grad():
        return policy.unroll(
            batch.time_step, batch.agent_output.action, batch.core_state
        )


def _acted_in_mid_change(tmp_path):
    """(parts, a batch of one slot, the acting network's logits in float64)."""
    config = builders.config(**{**_LSTM, "actors.count": 1, "batch_size": 3})
    parts = builders.parts(config, tmp_path)
    policy = parts.training._learner.agent
    with torch.no_grad():  # from the start, actions are all but equally likely
        policy.network.policy.weight.mul_(1e4)
    parts.training.publish()
    one = parts.actors[0]
    one.fetch()
    _change_between_rows(parts, one)
    one.unroll()
    batch = builders.make_batcher(parts.shared).take().trajectory
    acted = _unrolled(policy, batch).policy_logits[:-1].double().numpy()
    return parts, batch, acted


def test_a_change_is_in_the_data_at_the_next_agent_step(tmp_path):
    _, batch, acted = _acted_in_mid_change(tmp_path)
    recorded = batch.agent_output.policy_logits.log_softmax(-1)
    for t, (epsilon, temperature) in enumerate(_in_force()):
        expected = _log_mixture(acted[t], epsilon, temperature)
        np.testing.assert_allclose(recorded[t], expected, rtol=1e-5, atol=1e-5)


def test_vtrace_equals_the_float64_reference_across_changes(tmp_path):
    """Epsilon from 0 to 1 and back within an unroll, and another target policy."""
    parts, batch, acted = _acted_in_mid_change(tmp_path)
    policy = parts.training._learner.agent
    with torch.no_grad():  # the learner has moved on since
        policy.network.policy.weight.mul_(-0.5)
        policy.network.policy.bias.add_(torch.tensor([0.8, -0.8]))
    target = _unrolled(policy, batch)
    output = batch.agent_output
    logits = target.policy_logits[:-1]
    distribution = policy.distribution
    learnable = base.learnable(batch)
    inputs = {
        "log_rhos": distribution.log_prob(logits, output.action)
        - distribution.log_prob(output.policy_logits, output.action),
        "discounts": batch.time_step.discount[1:] * 0.99,
        "rewards": batch.time_step.reward[1:],
        "values": target.baseline[:-1],
        "bootstrap_value": target.baseline[-1],
    }
    thresholds = (1.5, 1.2, 1.1)
    actual = vtrace.from_importance_weights(
        **inputs,
        learnable=learnable,
        clip_rho_threshold=thresholds[0],
        clip_pg_rho_threshold=thresholds[1],
        clip_c_threshold=thresholds[2],
        lambda_=1.0,
    )
    # The reference never sees what was recorded, only who acted, and how.
    exact = _log_mixture(logits.double().numpy(), 0.0, 1.0)
    mu = np.stack(
        [_log_mixture(acted[t], *values) for t, values in enumerate(_in_force())]
    )
    action = output.action.numpy()[..., None]
    log_rhos = np.take_along_axis(exact - mu, action, -1)[..., 0]
    assert (log_rhos > 0.5).any()
    assert (log_rhos < -0.5).any()
    reference = {k: v.double().numpy() for k, v in inputs.items()}
    reference["log_rhos"] = log_rhos
    last = (batch.time_step.step_type == types.StepType.LAST).numpy()
    for column, start, stop in _episodes(last):
        rows = vtrace_twin.rows(reference, start, stop)
        vs, advantages = vtrace_twin.naive(rows, thresholds)
        for mine, theirs in ((actual.vs, vs), (actual.pg_advantages, advantages)):
            np.testing.assert_allclose(
                mine[start:stop, column], theirs[:, column], rtol=1e-5, atol=1e-5
            )


def _episodes(last):
    """(column, first row, row of its end) of each piece of an episode."""
    num_steps = len(last) - 1
    for column in range(last.shape[1]):
        ends = np.flatnonzero(last[:, column]).tolist()
        starts = [0, *(row + 1 for row in ends)]
        for start, stop in zip(starts, [*ends, num_steps], strict=True):
            if start < stop:
                yield column, start, stop


def _learn(parts):
    with torch.inference_mode(False):
        parts.training.step()


@pytest.mark.parametrize("schedule", ["", "linear(0.9, 0, 2000)"])
def test_the_detector_gives_no_false_alarm_when_values_change(tmp_path, schedule):
    """Scheduled values change each update; a person's, within unrolls."""
    overrides = {
        **_LSTM,
        "health.drift_interval": 1,
        "schedules.epsilon": schedule,
        "schedules.temperature": schedule and "exponential(4, 0.5, 2000)",
        "actors.epsilon_ladder": 2.0,
        "actors.slots": 4,
    }
    parts = builders.parts(builders.config(**overrides), tmp_path)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.weight.mul_(100.0)
    parts.training.restore(print)
    detector = parts.training._drift
    behind, newest = parts.actors
    behind.fetch()
    for turn in range(12):
        for _ in range(2):
            behind.unroll()
        newest.fetch()
        if schedule:  # an update in mid-unroll
            _before_rows(newest, {5: functools.partial(_learn, parts)})
        else:
            parts.training.step()
            if turn % 3 == 0:
                _change_between_rows(parts, newest)
        for _ in range(2):
            newest.unroll()
        parts.training.step()
        assert detector.alarms == 0
    assert detector.worst < 1e-4  # it did check


def test_the_detector_sees_an_epsilon_that_was_not_in_force(tmp_path):
    overrides = {"health.drift_interval": 1, "schedules.epsilon": "linear(0, 1, 1e4)"}
    parts = builders.parts(builders.config(**overrides), tmp_path)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.weight.mul_(300.0)
    parts.training.restore(print)
    for _ in range(4):
        for i, one in enumerate(parts.actors):
            one.fetch()
            one.unroll()
            slot = parts.shared.rings.ring(i).peek(0)
            slot.agent_output.policy_logits[2] = 0.0  # as with epsilon 1
        parts.training.step()
    assert parts.training._drift.alarms > 0


def test_each_actor_has_its_rung(tmp_path):
    config = builders.config(**{"actors.epsilon": 0.5, "actors.epsilon_ladder": 7.0})
    parts = builders.parts(config, tmp_path)
    policy = parts.training._learner.agent
    parts.training.publish()
    for i, one in enumerate(parts.actors):
        one.fetch()
        one.unroll()
        slot = nest.map_structure(torch.tensor, parts.shared.rings.ring(i).peek(0))
        acted = _unrolled(policy, slot).policy_logits[:-1].double().numpy()
        expected = _log_mixture(acted, 0.5 ** (1, 8)[i], 1.0)
        recorded = slot.agent_output.policy_logits
        np.testing.assert_allclose(recorded, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_the_server_knows_the_rungs_and_the_temperature(tmp_path, alpha):
    overrides = {"actors.epsilon": 0.5, "actors.epsilon_ladder": alpha}
    served = served_lib.Served(tmp_path, **overrides)
    served.training.publish()
    served.shared.control.override({"temperature": 0.25})
    with served.serving():
        for one in served.actors:
            one.unroll()
    batch = builders.make_batcher(served.shared).take()
    acted = _unrolled(served.training._learner.agent, batch.trajectory)
    logits = acted.policy_logits[:-1].double().numpy()
    recorded = batch.trajectory.agent_output.policy_logits
    for column, index in enumerate(batch.header.actor):
        epsilon = 0.5 ** (1.0, 1.0 + alpha)[index]
        expected = _log_mixture(logits[:, column], epsilon, 0.25)
        np.testing.assert_allclose(recorded[:, column], expected, rtol=1e-5, atol=1e-5)


_SCHEDULES = {
    "schedules.epsilon": "linear(0.5, 0.1, 1500)",
    "schedules.temperature": "piecewise(1, 500, 2, 1000, 1)",
    "schedules.entropy_cost": "exponential(0.1, 0.001, 2000)",
    "schedules.learning_rate_factor": "linear(1, 0.5, 1e3)",
    "optimizer.schedule": "constant",
}


def test_every_update_uses_what_its_schedule_says(tmp_path):
    config = builders.config(**_SCHEDULES)
    parts = builders.parts(config, tmp_path)
    learner, seen = parts.training._learner, []
    update = learner.update

    def watched(batch, live, sample):
        seen.append((learner.agent_steps, live.entropy_cost))
        return update(batch, live, sample)

    learner.update = watched
    parts.training.restore(print)
    for _ in range(5):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        parts.training.step()
    assert seen == [
        (steps, 0.1 * 0.01 ** (steps / 2000)) for steps in range(0, 150, 30)
    ]
    parts.shared.control.override({"entropy_cost": 0.7})
    parts.training.write_record()
    record = parts.shared.learner_record.read()
    assert record["live/entropy_cost"] == 0.7  # a person comes before a schedule
    assert record["live/epsilon"] == pytest.approx(0.5 - 0.4 * 150 / 1500)
    assert record["loss/learning_rate"] == pytest.approx(1e-3 * (1 - 0.5 * 0.15))
    assert record["live/clip_rho_threshold"] == 1.0
    parts.shared.control.override({"entropy_cost": None})
    assert parts.shared.control.get("entropy_cost") == 0.1 * 0.01 ** (150 / 2000)


def test_lockstep_with_schedules_repeats_and_goes_on_bit_for_bit(tmp_path):
    whole = lockstep_runs.train(tmp_path / "whole", **_SCHEDULES)
    for updates in (13, 14, 40):
        steps = updates * 7 * 8
        parts = lockstep_runs.train(
            tmp_path / "parts", total_agent_steps=steps, **_SCHEDULES
        )
    plain = lockstep_runs.train(
        tmp_path / "plain", **{**_SCHEDULES, "schedules.epsilon": ""}
    )
    for key in lockstep_runs.LEARNED:
        lockstep_runs.assert_same(whole[key], parts[key], key)
    with pytest.raises(AssertionError):
        lockstep_runs.assert_same(whole["learner"], plain["learner"])


def test_what_a_person_set_is_in_the_checkpoint_and_stays(tmp_path):
    parts = builders.parts(builders.config(), tmp_path / "checkpoints")
    parts.training.restore(print)
    parts.shared.control.override({"entropy_cost": 0.5, "clip_rho_threshold": np.inf})
    parts.training.save()
    state = checkpoint.load_newest(str(tmp_path / "checkpoints"), print)
    assert state["overrides"] == {"entropy_cost": 0.5, "clip_rho_threshold": np.inf}
    control = builders.shared(builders.config(), tmp_path).control
    sentences = live_control.restore(control, state["overrides"])
    assert (control.get("entropy_cost"), control.get("epsilon")) == (0.5, 0.0)
    assert "entropy_cost stays 0.5, as set by impala-ctl" in sentences[0]


def test_a_change_after_the_checkpoint_of_an_update_is_in_its_last_one(tmp_path):
    parts = builders.parts(builders.config(), tmp_path / "checkpoints")
    parts.training.restore(print)
    values = ({"epsilon": 0.25}, {"epsilon": 0.75}, {"epsilon": None})
    for change, expected in zip(values, (*values[:2], {}), strict=True):
        parts.shared.control.override(change)
        parts.training.save()  # all of one update
        state = checkpoint.load_newest(str(tmp_path / "checkpoints"), print)
        assert state["overrides"] == expected
    before = os.stat(tmp_path / "checkpoints" / "0" / "state.pt").st_ino
    parts.training.save()  # nothing has changed since
    assert os.stat(tmp_path / "checkpoints" / "0" / "state.pt").st_ino == before


# Questions and answers, without processes.


class _Answering:
    """The supervisor's side, whose ticks the test calls."""

    def __init__(self, path, **overrides):
        config = builders.config(**overrides)
        shared = builders.shared(config, path)
        self.control = shared.control
        self.said = []
        self.live = live_control.LiveControl(
            self.control,
            config,
            str(path),
            self.said.append,
            shared.environment.action,
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
    assert "these have a Box" in run.ask({"set": {"epsilon": 0.1}})["refused"]
    assert run.control.get("epsilon") == 0.0
    assert "lines" in run.ask({"set": {"epsilon": 0.0, "temperature": 2.0}})


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
    ],
)
def test_what_is_refused_changes_nothing(tmp_path, message, sentence):
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


def test_a_question_that_is_not_answered_is_withdrawn(tmp_path, monkeypatch):
    box = mailbox.Mailbox(str(tmp_path))
    monkeypatch.setattr(workdir, "is_live", lambda path: True)
    with pytest.raises(mailbox.NoAnswer):
        mailbox.ask(str(tmp_path), {"get": []}, 0.0)
    assert box.take() == []
    left = tmp_path / "questions" / "1.question"
    left.write_text('{"set": {"epsilon": 1.0}}')
    assert mailbox.Mailbox(str(tmp_path)).take() == []  # it was meant for another run
    assert not left.exists()


def test_a_run_is_alive_while_it_holds_its_folder(tmp_path):
    path = str(tmp_path / "run")
    assert not workdir.is_live(path)
    run = workdir.Workdir(path)
    run.open(builders.config())
    assert workdir.is_live(path)
    run.close()
    assert not workdir.is_live(path)
    with pytest.raises(errors.BadInput, match="is not alive"):
        mailbox.ask(path, {"get": []}, 1.0)
