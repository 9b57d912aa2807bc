"""Learner ranks against one process that has their shares as micro-batches."""

import math

import pytest
import torch

from impala_mp import nest, types
from impala_mp.algorithms import base
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.workers import learner
from tests.support import builders, learners, rank_threads

_LIVE = base.live_from_config(builders.config())
_FEW, _MANY = 4, 50  # updates

_IMPACT = {
    "algorithm": "impact",
    "learner.passes": 2,
    "target.period": 2,
    "impact.kl_cost": 0.1,
    "loss.popart": True,
    "loss.popart_beta": 0.1,
}
_GTRXL = {
    "network.core": "gtrxl",
    "network.gtrxl.window": 4,
    "network.gtrxl.heads": 2,
}
_KINDS = {
    "mlp": {},
    "lstm": learners.LSTM,
    "gtrxl": _GTRXL,
    "popart": {"loss.popart": True, "loss.reduction": "mean"},
    "impact": {**_IMPACT, **learners.LSTM, "loss.baseline": "huber"},
    "bfloat16": {**learners.LSTM, "learner.precision": "bfloat16"},
    "dqn": {"algorithm": "dqn", "loss.reward_clipping": "none"},
    "replay": {
        "replay.ratio": 0.5,
        "replay.clear_policy_cost": 0.01,
        "replay.trust_region": 0.3,
    },
}


def _batches(config, environment, policy, number, nan_in=None):
    """Whole batches, and the samples that replay would give them."""
    for seed in range(number):
        batch = builders.random_batch(config, environment, policy, seed)
        if nan_in is not None and seed == 1:
            batch.time_step.reward[2, nan_in] = math.nan
        sample = None
        if config.replay.ratio:
            generator = torch.Generator().manual_seed(seed)
            words = torch.rand(2, batch.shape[1], generator=generator)
            sample = types.Sample(0.5 + words[0], (words[1] > 0.5).float())
        yield batch, sample


def _share(batch, sample, rank, size):
    """Columns of one rank."""
    count = batch.shape[1] // size

    def cut(axis, leaf):
        return leaf.narrow(axis, rank * count, count).clone()

    words = sample and types.Sample(*(cut(0, leaf) for leaf in sample))
    return nest.map_batch(cut, batch), words


def _make(size=1, group=None, **overrides):
    """A learner whose config has a `size`-th of the batch, and the whole config."""
    whole = builders.config(
        **{
            "environment.id": "CartPole-v1",
            "batch_size": 12,
            "network.normalise_observations": False,
            **overrides,
        }
    )
    own = whole.copy_and_resolve_references()
    own.batch_size = whole.batch_size // size
    environment = factory.make(whole.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(own, environment)
    return learner.Learner(own, policy, group), whole, environment


def _state(made):
    state = {name: tensor.clone() for name, tensor in made.state_tensors.items()}
    progress = torch.tensor([made.updates, made.agent_steps])
    return {**state, "progress": progress}


def _is_blamed(made):
    own, most = made.guilt.tolist()
    return bool(own or not (most or made.rank))


def _learn_together(size, number, nan_in=None, **overrides):
    """State, metrics and blame of each rank."""
    torch.set_num_threads(1)
    made = {}

    def one(group):
        the_learner, whole, environment = made[group.rank]
        metrics, blamed = [], []
        policy = the_learner.agent
        for batch, sample in _batches(whole, environment, policy, number, nan_in):
            share = _share(batch, sample, group.rank, size)
            metrics.append(the_learner.update(share[0], _LIVE, share[1]).clone())
            blamed.append(_is_blamed(the_learner))
        return _state(the_learner), torch.stack(metrics), blamed

    def build_and_learn(group):
        for rank in range(size):  # one after the other: seeds are global
            if rank == group.rank:
                made[rank] = _make(size, group, **overrides)
            group.exchange([0.0])
        return one(group)

    return rank_threads.run(size, build_and_learn)


def _learn_alone(parts, number, nan_in=None, **overrides):
    torch.set_num_threads(1)
    made, whole, environment = _make(**overrides, **{"learner.micro_batches": parts})
    metrics = [
        made.update(batch, _LIVE, sample).clone()
        for batch, sample in _batches(whole, environment, made.agent, number, nan_in)
    ]
    return _state(made), torch.stack(metrics)


def _assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        a, b = (each[name].flatten().view(torch.uint8) for each in (one, other))
        assert torch.equal(a, b), name


def _assert_twins(number, kind, nan_in=None):
    (state, metrics), ranks = (
        _learn_alone(2, number, nan_in, **kind),
        _learn_together(2, number, nan_in, **kind),
    )
    for its_state, its_metrics, _ in ranks:
        _assert_same_bits(its_state, state)
        _assert_same_bits({"": its_metrics}, {"": metrics})


@pytest.mark.parametrize("kind", _KINDS)
def test_two_ranks_are_one_process_with_two_micro_batches_bit_for_bit(kind):
    _assert_twins(_FEW, _KINDS[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_two_ranks_are_one_process_for_many_updates(kind):
    _assert_twins(_MANY, _KINDS[kind])


@pytest.mark.parametrize("kind", ["impact", "popart"])
@pytest.mark.parametrize("size", [3, 4])
def test_more_ranks_have_the_same_bits_and_are_close_to_one_process(size, kind):
    state, metrics = _learn_alone(size, _FEW, **_KINDS[kind])
    first, *others = _learn_together(size, _FEW, **_KINDS[kind])
    for other in others:
        _assert_same_bits(other[0], first[0])
        _assert_same_bits({"": other[1]}, {"": first[1]})
    torch.testing.assert_close(first[1], metrics, rtol=1e-4, atol=1e-5)
    parameters = [each["parameters"].view(torch.float32) for each in (first[0], state)]
    torch.testing.assert_close(*parameters, rtol=1e-4, atol=1e-5)


def test_observations_are_normalised_by_those_of_all_ranks():
    kind = {**_IMPACT, "network.normalise_observations": True}
    state, metrics = _learn_alone(2, _FEW, **kind)
    first, second = _learn_together(2, _FEW, **kind)
    _assert_same_bits(first[0], second[0])
    torch.testing.assert_close(first[1], metrics, rtol=1e-4, atol=1e-5)
    parameters = [each["parameters"].view(torch.float32) for each in (first[0], state)]
    torch.testing.assert_close(*parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_number_that_is_not_finite_is_skipped_by_all_and_blamed_on_one(guilty):
    column = 6 * guilty + 1
    kind = _KINDS["impact"]
    _assert_twins(_FEW, kind, column)
    ranks = _learn_together(2, _FEW, column, **kind)
    for rank, (_, metrics, blamed) in enumerate(ranks):
        skipped = metrics[:, 2]
        assert skipped.tolist() == [0.0, 1.0, 0.0, 0.0]
        assert blamed[1] == (rank == guilty)
