"""Learner ranks against one process that has their shares as micro-batches."""

import math

import numpy as np
import pytest
import torch

from impala_mp import nest, types
from impala_mp.algorithms import base
from impala_mp.environments import factory
from impala_mp.evaluation import diagnosis
from impala_mp.networks import agent
from impala_mp.storage import crash_file
from impala_mp.workers import batcher, learner, nonfinite
from tests.support import builders, learners, rank_threads

_LIVE = base.live_from_config(builders.config())
_FEW, _MANY = 4, 50  # updates

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
    "impact": learners.IMPACT,
    # Without a core, so that a pass casts each weight once: ranks are threads here,
    # and torch's cache of casts is one for all threads of a process.
    "bfloat16": {"learner.precision": "bfloat16"},
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
        device, sample = config.learner.device, None
        batch = nest.map_structure(lambda leaf, to=device: leaf.to(to), batch)
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
    state = {name: x.cpu().clone() for name, x in made.state_tensors.items()}
    progress = torch.tensor([made.updates, made.agent_steps])
    return {**state, "progress": progress}


def _is_blamed(made):
    own, most = made.guilt.tolist()
    return bool(own or not (most or made.rank))


def _in_turn(group, size, **overrides):
    """A learner of one rank, made after those of lower ones: seeds are global."""
    for rank in range(size):
        if rank == group.rank:
            made = _make(size, group, **overrides)
        group.exchange([0.0])
    return made


def _batch_of(trajectory):
    size, rows = trajectory.shape[1], trajectory.shape[0]
    words = np.zeros(size, np.int64)
    header = types.Header(*(words for _ in types.Header._fields))
    versions = np.zeros((rows, size), np.int64)
    return batcher.Batch(
        trajectory, header, (), versions, (), (), size, sample=None, draw=None
    )


def _learn_together(size, number, nan_in=None, device="cpu", **overrides):
    """State, metrics and blame of each rank."""
    torch.set_num_threads(1)

    def one(group):
        the_learner, whole, environment = _in_turn(group, size, **overrides)
        metrics, blamed = [], []
        policy = the_learner.agent
        for batch, sample in _batches(whole, environment, policy, number, nan_in):
            share = _share(batch, sample, group.rank, size)
            metrics.append(the_learner.update(share[0], _LIVE, share[1]).clone())
            blamed.append(_is_blamed(the_learner))
        return _state(the_learner), torch.stack(metrics), blamed

    return rank_threads.run(size, one, device)


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


_slow = pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    ["lstm", "impact", *(pytest.param(k, marks=_slow) for k in ("mlp", "gtrxl"))]
    + [pytest.param(k, marks=_slow) for k in ("popart", "bfloat16", "dqn", "replay")],
)
def test_two_ranks_are_one_process_with_two_micro_batches_bit_for_bit(kind):
    _assert_twins(2 if kind in ("lstm", "impact") else _MANY, _KINDS[kind])


@_slow
@pytest.mark.parametrize("kind", ["lstm", "impact"])
def test_two_ranks_are_one_process_for_many_updates(kind):
    _assert_twins(_MANY, _KINDS[kind])


@_slow
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
    kind = {"network.normalise_observations": True}
    state, metrics = _learn_alone(2, 2, **kind)
    first, second = _learn_together(2, 2, **kind)
    _assert_same_bits(first[0], second[0])
    torch.testing.assert_close(first[1], metrics, rtol=1e-4, atol=1e-5)
    parameters = [each["parameters"].view(torch.float32) for each in (first[0], state)]
    torch.testing.assert_close(*parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_number_that_is_not_finite_is_skipped_by_all_and_blamed_on_one(guilty):
    kind = {**_KINDS["impact"], "network.core": "none", "network.last_action": False}
    ranks = _learn_together(2, 3, 6 * guilty + 1, **kind)
    for rank, (_, metrics, blamed) in enumerate(ranks):
        assert metrics[:, 2].tolist() == [0.0, 1.0, 0.0]
        assert blamed[1] == (rank == guilty)


@_slow
@pytest.mark.parametrize("column", [1, 7])
def test_after_a_number_that_is_not_finite_ranks_are_one_process(column):
    _assert_twins(_FEW, _KINDS["impact"], column)


@pytest.mark.parametrize(
    ("device", "graph"),
    [
        ("cpu", False),
        pytest.param("cuda", False, marks=pytest.mark.gpu),
        pytest.param("cuda", True, marks=pytest.mark.gpu),  # two graphs an update
    ],
)
def test_a_single_rank_is_the_plain_learner_bit_for_bit(device, graph):
    kind = {**_KINDS["popart"], "learner.device": device, "learner.cuda_graph": graph}
    number = 6 if graph else 2  # the fourth is captured
    state, metrics = _learn_alone(1, number, **kind)
    ((its_state, its_metrics, _),) = _learn_together(1, number, device=device, **kind)
    _assert_same_bits(its_state, state)
    _assert_same_bits({"": its_metrics}, {"": metrics})


def test_the_guilty_rank_keeps_what_it_learned_from(tmp_path):
    columns = {}

    def learn(group, the_learner, share, sample):
        guard = nonfinite.Guard(the_learner._config, the_learner, str(tmp_path))
        guard.before()
        metrics = the_learner.update(share, _LIVE, sample)
        columns[group.rank] = share
        guard.after(_batch_of(share), metrics, _LIVE)
        return metrics

    def function(group):
        the_learner, whole, environment = _in_turn(group, 2)
        ((_, _), (batch, sample)) = _batches(
            whole, environment, the_learner.agent, 2, 8
        )
        return learn(group, the_learner, *_share(batch, sample, group.rank, 2))

    rank_threads.run(2, function)
    (path,) = tmp_path.iterdir()
    kept = crash_file.load(str(path))
    expected = crash_file.leaves(columns[1])
    for own, other in zip(kept.batch, expected, strict=True):
        assert torch.equal(own.nan_to_num(), other.nan_to_num())
    assert "reward is nan" in diagnosis.Diagnosis(kept).culprit()
