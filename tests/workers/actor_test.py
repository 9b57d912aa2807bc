"""Actor, ring, store, batcher and learner in one process: what acted is what learns."""

import numpy as np
import pytest
import torch

from impala_mp import nest, types
from impala_mp.environments import bad_data
from impala_mp.transport import parameter_store
from impala_mp.workers import actor, builders as worker_builders
from tests.support import builders

# Episodes that end often, both ways: falls, and a limit of 7 steps.
_ENDS = {
    "environment.id": "tests.support.short_cartpole:ShortCartPole-v0",
    "network.core": "lstm",
    "network.last_action": True,
    "network.last_reward": True,
}


_ABSENT = ("episode", "memory/")  # no game has ended yet; there is no GPU


def _act(parts, unrolls=1):
    for one in parts.actors:
        one.fetch()
        for _ in range(unrolls):
            one.unroll()


def _worst_drift(parts, rounds=6):
    """Largest difference between recorded logits and those of the learner."""
    made = builders.make_batcher(parts.shared)
    learner = parts.training._learner
    worst, ends = 0.0, set()
    parts.training.publish()
    for _ in range(rounds):
        _act(parts)
        batch = made.take().trajectory
        with torch.no_grad():
            output = learner.agent.unroll(
                batch.time_step, batch.agent_output.action, batch.core_state
            )
        recorded = batch.agent_output
        error = (output.policy_logits[:-1] - recorded.policy_logits).abs().max()
        values = (output.baseline[:-1] - recorded.baseline).abs().max()
        worst = max(worst, error.item(), values.item())
        last = batch.time_step.step_type == types.StepType.LAST
        ends |= set(batch.time_step.discount[last].tolist())
    assert ends == {0.0, 1.0}  # terminations and truncations were there
    return worst


@pytest.mark.parametrize(
    # Weights thrice as large make more of rounding with each layer.
    ("core", "tolerance"),
    [("lstm", 1e-5), ("gru", 1e-5), ("gtrxl", 1e-4)],
)
def test_learner_logits_equal_actor_logits_across_episodes(tmp_path, core, tolerance):
    config = builders.config(**{**_ENDS, "network.core": core})
    parts = builders.parts(config, tmp_path)
    with torch.no_grad():  # logits that differ
        parts.training._learner.parameters.trainable.mul_(3.0)
    assert _worst_drift(parts) < tolerance


def test_the_drift_test_sees_a_core_state_of_the_wrong_row(tmp_path, monkeypatch):
    unroll = actor.Actor.unroll

    def stored_too_late(self):
        slot = self._slots[self._ring.open_index()]
        unroll(self)
        for stored, leaf in zip(slot.core_state, self._state, strict=True):
            stored.copy_(leaf)

    monkeypatch.setattr(actor.Actor, "unroll", stored_too_late)
    parts = builders.parts(builders.config(**_ENDS), tmp_path)
    assert _worst_drift(parts) > 1e-3


@pytest.mark.parametrize("core", ["lstm", "gru", "gtrxl"])
def test_the_detector_is_silent_while_all_is_well(tmp_path, core):
    own = {"network.core": core, "health.drift_interval": 1}
    parts = builders.parts(builders.config(**{**_ENDS, **own}), tmp_path)
    parts.training.restore(print)
    for _ in range(8):
        _act(parts)
        parts.training.step()
    detector = parts.training._drift
    assert detector.alarms == 0
    assert 0.0 <= detector.worst < 1e-4


def _spoiled_state(slot):
    slot.core_state[1].fill(1.0)


def _spoiled_logits(slot):
    slot.agent_output.policy_logits[2, :, 0] += 0.3


@pytest.mark.parametrize("spoil", [_spoiled_state, _spoiled_logits])
def test_the_detector_sees_what_the_actor_did_not_do(tmp_path, capsys, spoil):
    config = builders.config(**{**_ENDS, "health.drift_interval": 1})
    parts = builders.parts(config, tmp_path)
    with torch.no_grad():  # from the start, actions are all but equally likely
        parts.training._learner.agent.network.policy.weight.mul_(100.0)
    parts.training.restore(print)
    for _ in range(3):
        _act(parts)
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
    config = builders.config(**{**_ENDS, **own})
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
        _act(parts)
        parts.training.step()
    assert f"First difference: {layer}." in capsys.readouterr().out


_ROUGH = {**_ENDS, "health.drift_interval": 1, "learner.precision": "bfloat16"}


def _rough(tmp_path, offset):
    """A detector after some updates; `offset` of all logits alike means nothing."""
    parts = builders.parts(builders.config(**_ROUGH), tmp_path)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.weight.mul_(300.0)
        parts.training._learner.agent.network.policy.bias.add_(offset)
    parts.training.restore(print)
    for _ in range(6):
        _act(parts)
        parts.training.step()
    return parts.training._drift


def test_the_detector_sees_what_the_learner_computes_in_and_lets_it_round(tmp_path):
    detector = _rough(tmp_path, offset=0.0)
    assert detector.alarms == 0
    assert 1e-4 < detector.worst < 0.1


def test_the_detector_names_a_layer_that_bfloat16_is_too_rough_for(tmp_path, capsys):
    assert _rough(tmp_path, offset=3000.0).alarms > 0
    assert "First difference: policy." in capsys.readouterr().out


@pytest.mark.parametrize("limit", [0, 1])
def test_no_trajectory_is_older_than_the_limit_and_nobody_waits_for_ever(
    tmp_path, limit
):
    config = builders.config(**{"max_policy_lag": limit, "actors.slots": 1})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(print)
    rings = [parts.shared.rings.ring(i) for i in range(2)]
    for turn in range(60):
        one, ring = parts.actors[turn % 2], rings[turn % 2]
        if turn % 7 != 3 and ring.has_space():  # an uneven pair
            if turn % 5:
                one.fetch()
            one.unroll()
        if parts.training.ready():
            parts.training.step()
            assert parts.training._lags.metrics()["lag/max"] <= limit
        parts.training._accounts.counts()
    assert parts.training._learner.updates > 10
    if limit == 0:
        learner = parts.shared.topology.learner()
        assert parts.shared.row(learner).get("discarded") > 0


def test_the_last_row_is_the_next_unrolls_first(tmp_path):
    parts = builders.parts(builders.config(**_ENDS), tmp_path)
    parts.training.publish()
    _act(parts, unrolls=3)
    slots = parts.shared.rings.ring(0).slots
    for before, after in ((0, 1), (1, 2)):
        for mine, theirs in zip(
            nest.flatten(slots[before].time_step),
            nest.flatten(slots[after].time_step),
            strict=True,
        ):
            np.testing.assert_array_equal(mine[-1], theirs[0])


def test_one_version_an_unroll_whatever_is_published_meanwhile(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    one = parts.actors[0]
    step = one._environment.step

    def step_and_publish(action):
        parts.training.publish()
        return step(action)

    one._environment.step = step_and_publish
    for expected in (1, 6, 11):
        one.fetch()
        before = one.parameters.buffer.copy()
        one.unroll()
        np.testing.assert_array_equal(before, one.parameters.buffer)
        ring = parts.shared.rings.ring(0)
        slot = ring.peek(0)
        assert (slot.parameter_version == expected).all()
        ring.release(1)


def test_a_fetch_that_fails_leaves_nothing_to_act_with(tmp_path, monkeypatch):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    one, store = parts.actors[0], parts.shared.store
    one.fetch()
    assert one.parameters.version == 1
    monkeypatch.setattr(store, "fetch", lambda into, newer_than: parameter_store.FAILED)
    one.fetch()
    assert one.parameters.version == 0
    monkeypatch.undo()
    one.fetch()  # what it had is fetched anew
    assert one.parameters.version == 1


def _spoil_once(one, at):
    """The environment of `one` gives a NaN at its step number `at`."""
    envs, count = one._environment.unwrapped, [0]
    step = envs.step

    def spoiled(actions):
        observation, reward, *rest = step(actions)
        count[0] += 1
        return observation, reward * (np.nan if count[0] == at else 1.0), *rest

    envs.step = spoiled


def test_an_unroll_with_bad_data_is_thrown_away_and_counted(tmp_path):
    parts = builders.parts(builders.config(**{"network.core": "lstm"}), tmp_path)
    parts.training.publish()
    one, row = parts.actors[0], parts.shared.row(parts.shared.topology.actors[0])
    ring = parts.shared.rings.ring(0)
    one.fetch()
    _spoil_once(one, at=8)  # in the second unroll
    assert [one.guarded_unroll() for _ in range(3)] == [True, False, True]
    assert (row.get("bad_rewards"), row.get("bad_observations")) == (1, 0)
    assert ring.num_committed() == 2
    slot = ring.peek(1)
    assert (slot.time_step.step_type[0] == types.StepType.FIRST).all()
    assert not any(leaf.any() for leaf in slot.core_state)


def test_a_reset_that_gives_bad_data_is_counted_and_repeated(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    one, row = parts.actors[0], parts.shared.row(parts.shared.topology.actors[0])
    one.fetch()
    _spoil_once(one, at=3)
    envs, resets = one._environment.unwrapped, [0]
    reset = envs.reset

    def spoiled(**arguments):
        observation, info = reset(**arguments)
        resets[0] += 1
        return observation * (np.nan if resets[0] < 3 else 1.0), info

    envs.reset = spoiled
    with np.errstate(invalid="ignore"):
        assert [one.guarded_unroll() for _ in range(2)] == [False, True]
    assert (row.get("bad_rewards"), row.get("bad_observations")) == (1, 2)
    assert resets == [3]


def test_an_environment_that_gives_nothing_else_ends_its_actor(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    one = parts.actors[0]
    one.fetch()
    one._environment.unwrapped.step = lambda actions: (
        one._time_step.observation,
        np.full(3, np.nan),
        np.zeros(3, bool),
        np.zeros(3, bool),
        {},
    )
    with pytest.raises(bad_data.BadData):
        any(one.guarded_unroll() for _ in range(1000))


def test_epsilon_is_live_and_recorded(tmp_path):
    parts = builders.parts(builders.config(**{"unroll_length": 9}), tmp_path)
    parts.training.publish()
    one = parts.actors[0]
    step, rows = one._environment.step, iter(range(9))

    def change_after(action):
        epsilons = {2: 1.0, 5: 0.0}  # from the next row on
        epsilon = epsilons.get(next(rows))
        if epsilon is not None:
            parts.shared.control.set("epsilon", epsilon)
        return step(action)

    one._environment.step = change_after
    one.fetch()
    one.unroll()
    logits = parts.shared.rings.ring(0).peek(0).agent_output.policy_logits
    uniform = [bool(np.allclose(row, np.log(1 / 3))) for row in logits]
    assert uniform == [False] * 3 + [True] * 3 + [False] * 3


def test_a_stop_in_mid_unroll_commits_nothing(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    parts.actors[0].fetch()
    parts.shared.control.stop()
    parts.actors[0].unroll()
    assert parts.shared.rings.heads().tolist() == [0, 0]


def test_batches_are_whole_slots_in_arrival_order(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    made = builders.make_batcher(parts.shared)
    assert not made.ready()
    for index in (1, 1, 0):
        parts.actors[index].fetch()
        parts.actors[index].unroll()
    slots = [parts.shared.rings.ring(1).slots[k] for k in (0, 1)]
    copies = nest.map_structure(np.array, slots)
    batch = made.take()
    assert batch.header.actor.tolist() == [1] * 6
    assert batch.header.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert not made.ready()
    assert parts.shared.rings.tails().tolist() == [0, 2]
    naive = types.Trajectory(
        *(
            nest.map_structure(lambda *x, a=axis: np.concatenate(x, a), *fields)
            for axis, *fields in zip(types.BATCH_AXIS, *copies, strict=True)
        )
    )
    host = (batch.episode_end, batch.parameter_version, batch.header)
    mine = batch.trajectory._replace(
        **dict(zip(("episode_end", "parameter_version", "header"), host, strict=True))
    )
    for leaf, twin in zip(nest.flatten(mine), nest.flatten(naive), strict=True):
        np.testing.assert_array_equal(leaf, twin)


def test_accounting_and_checkpoints_of_training(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.restore(print)
    for _ in range(4):
        _act(parts)
        parts.training.step()
    _act(parts)
    parts.training.write_record()
    record = parts.shared.learner_record.read()
    assert record["health/committed"] == 30
    assert record["health/learned"] == 24
    assert record["health/in_flight"] == 6
    assert record["updates"] == 4
    assert record["agent_steps"] == 4 * 5 * 6
    assert not [k for k, v in record.items() if np.isnan(v) and k[:7] not in _ABSENT]
    parts.training.save()
    # The learner is killed with a batch in hand, and another takes its seat.
    builders.make_batcher(parts.shared).take()
    again = worker_builders.make_learner(parts.shared.topology.learner(), parts.shared)
    again.restore(print)
    record = parts.shared.learner_record.read()
    assert record["updates"] == record["restored/updates"] == 4
    assert record["health/discarded"] == 6
    assert record["health/in_flight"] == 0
    assert torch.equal(
        again._learner.parameters.flat, parts.training._learner.parameters.flat
    )


def test_a_batch_that_went_missing_is_noticed(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.restore(print)
    _act(parts)
    builders.make_batcher(parts.shared).take()  # somebody else's hand
    with pytest.raises(RuntimeError, match="lost or counted twice"):
        parts.training.write_record()
