"""The drift detector sees what the learner does not compute as the actor did."""

import functools

import pytest
import torch
from torch import nn

from impala_mp.environments import factory
from impala_mp.networks import activations, agent
from impala_mp.workers import drift, learner
from tests.support import builders, live_changes


@pytest.mark.parametrize("core", ["lstm", "gru", "gtrxl"])
def test_the_detector_is_silent_while_all_is_well(tmp_path, core):
    own = {"network.core": core, "health.drift_interval": 1}
    parts = builders.parts(
        builders.config(**{**builders.SHORT_EPISODES, **own}), tmp_path
    )
    parts.training.restore(print)
    for _ in range(8):
        builders.act(parts)
        parts.training.step()
    detector = parts.training._drift
    assert detector.alarms == 0
    assert 0.0 <= detector.worst < 1e-4


_QUANTILES = {
    **builders.SHORT_EPISODES,
    "algorithm": "iqn",
    "health.drift_interval": 1,
    "target.period": 2,
}


@pytest.mark.parametrize("fractions", ["drawn", "fixed"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_drawn_fractions_are_no_drift(tmp_path, fractions, precision):
    own = {"iqn.fractions": fractions, "learner.precision": precision}
    parts = builders.parts(builders.config(**_QUANTILES, **own), tmp_path)
    parts.training.restore(print)
    for _ in range(8):
        builders.act(parts)
        parts.training.step()
    detector = parts.training._drift
    assert detector.alarms == 0
    assert 0.0 <= detector.worst < (1e-4 if precision == "float32" else 0.1)


def test_a_checked_update_draws_the_same_fractions_as_one_that_is_not(tmp_path):
    flats = []
    for interval in (0, 1):
        config = builders.config(**{**_QUANTILES, "health.drift_interval": interval})
        parts = builders.parts(config, tmp_path / str(interval))
        parts.training.restore(print)
        torch.manual_seed(0)
        for _ in range(4):
            builders.act(parts)
            parts.training.step()
        flats.append(parts.training._learner.parameters.flat.clone())
    assert torch.equal(*flats)


@pytest.mark.parametrize("fractions", ["drawn", "fixed"])
def test_no_layer_of_quantiles_differs_where_the_record_does(
    tmp_path, capsys, fractions
):
    config = builders.config(**_QUANTILES, **{"iqn.fractions": fractions})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(print)
    for _ in range(3):
        builders.act(parts)
        for i in range(2):
            parts.shared.rings.ring(i).peek(0).agent_output.baseline[2] += 0.5
        parts.training.step()
    assert parts.training._drift.alarms > 0
    assert "none of the layers; the actor's inputs" in capsys.readouterr().out


def _spoiled_state(slot):
    slot.core_state[1].fill(1.0)


def _spoiled_logits(slot):
    slot.agent_output.policy_logits[2, :, 0] += 0.3


@pytest.mark.parametrize("spoil", [_spoiled_state, _spoiled_logits])
def test_the_detector_sees_what_the_actor_did_not_do(tmp_path, capsys, spoil):
    config = builders.config(**{**builders.SHORT_EPISODES, "health.drift_interval": 1})
    parts = builders.parts(config, tmp_path)
    with torch.no_grad():  # from the start, actions are all but equally likely
        parts.training._learner.agent.network.policy.weight.mul_(100.0)
    parts.training.restore(print)
    for _ in range(3):
        builders.act(parts)
        for i in range(2):
            spoil(parts.shared.rings.ring(i).peek(0))
        parts.training.step()
    assert parts.training._drift.alarms > 0
    assert (
        "First difference: none of the layers; the actor's inputs"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lstm", "core.recurrent"),
        ("gru", "core.recurrent"),
        ("gtrxl", "core.layers.0.attention.output"),
    ],
)
def test_the_detector_names_a_layer_that_steps_unlike_it_unrolls(
    tmp_path, capsys, monkeypatch, name, layer
):
    own = {"network.core": name, "health.drift_interval": 1}
    config = builders.config(**{**builders.SHORT_EPISODES, **own})
    parts = builders.parts(config, tmp_path)
    core = type(parts.training._learner.agent.network.core)
    forward = core.forward

    def leaky(self, inputs, first, state):  # as if somebody forgot the reset
        return forward(self, inputs, first & (inputs.shape[0] == 1), state)

    monkeypatch.setattr(core, "forward", leaky)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.weight.mul_(1000.0)
    parts.training.restore(print)
    for _ in range(6):
        builders.act(parts)
        parts.training.step()
    assert f"First difference: {layer}." in capsys.readouterr().out


_each_rough = pytest.mark.parametrize("rough", ["learner", "inference"])


def _rough(tmp_path, rough, offset):
    """A detector after some updates; an `offset` of features leaves logits alone."""
    overrides = {
        **builders.SHORT_EPISODES,
        "health.drift_interval": 1,
        "network.core": "none",
        "network.last_action": False,
        "network.last_reward": False,
        "optimizer.learning_rate": 1e-9,
        f"{rough}.precision": "bfloat16",
    }
    config = builders.config(**overrides)
    parts = builders.parts(config, tmp_path)
    with torch.no_grad():
        network = parts.training._learner.agent.network
        weight = network.policy.weight.mul_(3000.0)
        [*_, last] = [m for m in network.torso.modules() if isinstance(m, nn.Linear)]
        direction = torch.linspace(0.5, 1.5, len(last.bias))
        last.bias.add_(offset * direction)
        along = weight @ direction / direction.square().sum()
        weight -= along.unsqueeze(1) * direction
    parts.training.restore(print)
    for _ in range(6):
        builders.act(parts)
        parts.training.step()
    return parts.training._drift


@_each_rough
def test_the_detector_sees_what_a_network_computes_in_and_lets_it_round(
    tmp_path, rough
):
    detector = _rough(tmp_path, rough, offset=0.0)
    assert detector.alarms == 0
    assert 2e-3 < detector.worst < 0.1  # of float32 it would be an alarm


@_each_rough
def test_the_detector_names_a_layer_that_bfloat16_is_too_rough_for(
    tmp_path, capsys, monkeypatch, rough
):
    monkeypatch.setattr(activations.Tanh, "forward", lambda self, features: features)
    assert _rough(tmp_path, rough, offset=300.0).alarms > 0
    assert "First difference: torso." in capsys.readouterr().out


def _learn(parts):
    with torch.inference_mode(False):
        parts.training.step()


@pytest.mark.parametrize("over", ["actors", "environments"])
@pytest.mark.parametrize("schedule", ["", "linear(0.9, 0, 2000)"])
def test_the_detector_gives_no_false_alarm_when_values_change(tmp_path, schedule, over):
    """Scheduled values change each update; a person's, within unrolls."""
    overrides = {
        **live_changes.LSTM,
        "health.drift_interval": 1,
        "schedules.epsilon": schedule,
        "schedules.temperature": schedule and "exponential(4, 0.5, 2000)",
        "actors.epsilon_ladder": 2.0,
        "actors.ladder_over": over,
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
            live_changes.before_rows(newest, {5: functools.partial(_learn, parts)})
        else:
            parts.training.step()
            if turn % 3 == 0:
                live_changes.change_between_rows(parts, newest)
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


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, "float32"),
        ({"inference.device": "cuda", "inference.mode": "server"}, "tf32"),
        ({"inference.device": "cuda"}, "float32"),  # actors infer
    ],
)
def test_a_gpu_that_acts_rounds_more(own, expected):
    config = builders.config(**own)
    environment = factory.make(config.environment, 1).spec
    made = learner.Learner(config, agent.make(config, environment))
    found = drift._tolerance({"float32"}, made.devices)
    assert found is drift._TOLERANCES[expected]
    assert drift._tolerance({"float32"}, {"cuda:1", "cpu"}) is drift._TOLERANCES["tf32"]
