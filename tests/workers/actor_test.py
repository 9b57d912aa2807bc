"""Actor, ring and store in one process: what acted is what learns."""

import numpy as np
import pytest
import torch

from impala_mp import nest, types
from impala_mp.environments import bad_data
from impala_mp.transport import parameter_store
from impala_mp.workers import actor
from tests.support import builders, live_changes


def _worst_drift(parts, rounds=6):
    """Largest difference between recorded logits and those of the learner."""
    made = builders.make_batcher(parts.shared)
    learner = parts.training._learner
    worst, ends = 0.0, set()
    parts.training.publish()
    for _ in range(rounds):
        builders.act(parts)
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
    config = builders.config(**{**builders.SHORT_EPISODES, "network.core": core})
    parts = builders.parts(config, tmp_path)
    with torch.no_grad():  # logits that differ
        parts.training._learner.parameters.trainable.mul_(3.0)
    assert _worst_drift(parts) < tolerance


def test_the_drift_test_sees_a_core_state_of_the_wrong_row(tmp_path, monkeypatch):
    unroll = actor.Actor.unroll

    def stored_too_late(self):
        (one,) = self.parties
        slot = one._slots[one.ring.open_index()]
        unroll(self)
        for stored, leaf in zip(slot.core_state, one._state, strict=True):
            stored.copy_(leaf)

    monkeypatch.setattr(actor.Actor, "unroll", stored_too_late)
    parts = builders.parts(builders.config(**builders.SHORT_EPISODES), tmp_path)
    assert _worst_drift(parts) > 1e-3


def test_the_last_row_is_the_next_unrolls_first(tmp_path):
    parts = builders.parts(builders.config(**builders.SHORT_EPISODES), tmp_path)
    parts.training.publish()
    builders.act(parts, unrolls=3)
    slots = parts.shared.rings.ring(0).slots
    for before, after in ((0, 1), (1, 2)):
        for mine, theirs in zip(
            nest.flatten(slots[before].time_step),
            nest.flatten(slots[after].time_step),
            strict=True,
        ):
            np.testing.assert_array_equal(mine[-1], theirs[0])


def test_a_state_of_an_older_version_has_no_seeds(tmp_path):
    one = builders.parts(builders.config(), tmp_path).actors[0]
    state = one.state_dict()
    seeds = state.pop("seeds")
    one.load_state_dict(state)
    assert one.state_dict()["seeds"] == seeds


def test_an_unroll_has_one_version_despite_publications(tmp_path):
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
        before = one.parties[0].parameters.buffer.copy()
        one.unroll()
        np.testing.assert_array_equal(before, one.parties[0].parameters.buffer)
        ring = parts.shared.rings.ring(0)
        slot = ring.peek(0)
        assert (slot.parameter_version == expected).all()
        ring.release(1)


def test_a_fetch_that_fails_leaves_nothing_to_act_with(tmp_path, monkeypatch):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    one, store = parts.actors[0], parts.shared.store
    one.fetch()
    assert one.parties[0].parameters.version == 1
    monkeypatch.setattr(store, "fetch", lambda into, newer_than: parameter_store.FAILED)
    one.fetch()
    assert one.parties[0].parameters.version == 0
    monkeypatch.undo()
    one.fetch()  # what it had is fetched anew
    assert one.parties[0].parameters.version == 1


def _spoil_once(one, at):
    """The environment of `one` gives a NaN at its step number `at`."""
    envs, count = one._environment.unwrapped, [0]
    step = envs.step

    def spoiled(actions):
        observation, reward, *rest = step(actions)
        count[0] += 1
        return observation, reward * (np.nan if count[0] == at else 1.0), *rest

    envs.step = spoiled


def test_an_unroll_with_bad_data_is_discarded_and_counted(tmp_path):
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
        one.parties[0].time_step.observation,
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


def test_a_change_is_in_the_data_at_the_next_agent_step(tmp_path):
    _, batch, acted = live_changes.acted_in_mid_change(tmp_path)
    recorded = batch.agent_output.policy_logits.log_softmax(-1)
    for t, (epsilon, temperature) in enumerate(live_changes.in_force()):
        expected = live_changes.log_mixture(acted[t], epsilon, temperature)
        np.testing.assert_allclose(recorded[t], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("over", "exponents"),
    [
        ("actors", [[1, 1, 1], [8, 8, 8]]),
        ("environments", [[1, 3.8, 6.6], [2.4, 5.2, 8]]),
    ],
)
def test_each_has_its_rung(tmp_path, over, exponents):
    ladder = {"actors.epsilon_ladder": 7.0, "actors.ladder_over": over}
    config = builders.config(**{"actors.epsilon": 0.5, **ladder})
    parts = builders.parts(config, tmp_path)
    policy = parts.training._learner.agent
    parts.training.publish()
    for i, one in enumerate(parts.actors):
        one.fetch()
        one.unroll()
        slot = nest.map_structure(torch.tensor, parts.shared.rings.ring(i).peek(0))
        acted = live_changes.unrolled(policy, slot).policy_logits[:-1].double().numpy()
        recorded = slot.agent_output.policy_logits
        for e, exponent in enumerate(exponents[i]):
            expected = live_changes.log_mixture(acted[:, e], 0.5**exponent, 1.0)
            np.testing.assert_allclose(recorded[:, e], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("over", ["actors", "environments"])
def test_a_ladder_from_zero_is_zero_on_each_rung(tmp_path, over):
    """A Box of actions cannot be explored with epsilon, and is not."""
    config = builders.config(
        **{
            "environment.id": "Pendulum-v1",
            "actors.epsilon_ladder": 7.0,
            "actors.ladder_over": over,
        }
    )
    parts = builders.parts(config, tmp_path)
    parts.training.publish()
    for one in parts.actors:
        one.fetch()
        assert one.unroll()
