"""Minibatches: each transition once a pass, and the steps of a naive twin."""

import numpy as np
import pytest
import torch

from impala_mp import nest, specs
from impala_mp.algorithms import base
from impala_mp.networks import agent
from impala_mp.workers import batch_parts, learner
from tests.networks import players_test
from tests.support import builders, learners, rank_threads
from tests.workers import rank_twin_test

_IMPACT = {
    "algorithm": "impact",
    "target.period": 2,
    "loss.popart": False,
    "impact.kl_cost": 0.1,
    "impact.normalise_advantages": True,
}
_KINDS = {
    "rows": _IMPACT,
    "columns": {**_IMPACT, **learners.LSTM, "loss.popart": False},
    "vtrace": {"loss.popart": False},
    "a core": {**learners.LSTM, "loss.popart": False},
    "pqn": {"algorithm": "dqn", "target.period": 0, "loss.popart": False},
}


# Adam divides by the gradient's size: epsilon keeps rounding errors small.
_SMOOTH = {
    "optimizer.learning_rate": 0.1,
    "optimizer.epsilon": 0.1,
    "loss.reduction": "mean",
}


def _make(kind, **overrides):
    return learners.make(**_KINDS[kind], **overrides)


def _numbered(batch):
    """A reference of each transition's place."""
    rows, columns = batch.shape
    return torch.arange(rows * columns).view(rows, columns)


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize(("by_row", "count"), [(True, 5), (False, 3)])
def test_each_transition_is_in_one_minibatch(by_row, count, micro):
    _, _, batch = learners.make()
    places = _numbered(batch)
    size = batch.shape[1] // micro
    parts = [
        (part, None, places[:, index * size : (index + 1) * size])
        for index, (part, _) in enumerate(batch_parts.split(batch, None, micro))
    ]
    drawn = list(batch_parts.steps(batch, parts, 1, count, by_row))
    assert [len(minibatch) for minibatch in drawn] == [micro] * count
    pieces = [part for minibatch in drawn for part in minibatch]
    seen = torch.cat([reference.flatten() for _, _, reference in pieces])
    assert sorted(seen.tolist()) == list(range(places.numel()))
    assert seen.tolist() != sorted(seen.tolist())
    for part, sample, reference in pieces:
        assert sample is None
        for name in ("action", "policy_logits"):
            whole = getattr(batch.agent_output, name).flatten(0, 1)
            assert torch.equal(getattr(part.agent_output, name), whole[reference])
        for mine, leaf in zip(part.time_step, batch.time_step, strict=True):
            if not isinstance(leaf, tuple):
                assert torch.equal(mine[:-1], leaf[:-1].flatten(0, 1)[reference])


def test_each_pass_draws_anew():
    _, _, batch = learners.make()
    parts = [(batch, None, _numbered(batch))]
    drawn = list(batch_parts.steps(batch, parts, 2, 5, True))
    first, second = (
        torch.cat([reference.flatten() for ((_, _, reference),) in steps])
        for steps in (drawn[:5], drawn[5:])
    )
    assert not torch.equal(first, second)
    assert torch.equal(first.sort()[0], second.sort()[0])


def test_a_single_minibatch_is_the_batch():
    _, _, batch = learners.make()
    parts = [(batch, None, ())]
    assert list(batch_parts.steps(batch, parts, 3, 1, True)) == [parts] * 3


def _naive_pass(made, batch, minibatches, by_row):
    """Steps along the gradient of chosen elements of the whole batch's loss."""
    ((part, sample, reference),) = made._referred([(batch, None)])
    rows, columns = batch.shape
    for _ in range(made._config.learner.passes):
        order = torch.rand(rows * columns if by_row else columns).argsort()
        for drawn in order.view(minibatches, -1):
            mask = torch.zeros(rows * columns if by_row else columns)
            mask[drawn] = 1.0
            mask = mask.view(rows, columns) if by_row else mask.expand(rows, columns)
            made._gradient.zero_()
            loss = made._algorithm.loss(
                part, sample, reference, made.unroll, made._live, 1
            )
            names = [name for name in loss.elements if name.startswith("loss/")]
            weights = mask * base.learnable(batch) / mask.sum()
            sum((loss.elements[name] * weights).sum() for name in names).backward()
            made._take(torch.zeros(len(made.metric_index)))


@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("kind", _KINDS)
def test_an_update_is_that_of_a_naive_twin(kind, micro):
    by_row = kind == "rows"
    fields = {"learner.passes": 2, **_SMOOTH}
    made, _, batch = _make(
        kind, **fields, **{"learner.minibatches": 3, "learner.micro_batches": micro}
    )
    twin, _, _ = _make(kind, **fields)
    live = base.live_from_config(made._config)
    torch.manual_seed(5)
    made.update(batch, live)
    torch.manual_seed(5)
    twin._set(live)
    twin._learning_rate.fill_(twin.learning_rate())
    _naive_pass(twin, batch, 3, by_row)
    assert made._optimizer.state["steps"] == 6
    before = _make(kind)[0].parameters.trainable
    moved = (twin.parameters.trainable - before).abs().max()
    assert moved > 0.01
    torch.testing.assert_close(
        made.parameters.trainable, twin.parameters.trainable, rtol=1e-3, atol=2e-5
    )


def test_the_metrics_are_means_over_the_steps():
    made, _, batch = _make("rows", **{"learner.minibatches": 3, "learner.passes": 2})
    seen, step = [], made._step

    def counted(parts):
        metrics, priorities = step(parts)
        seen.append(metrics.clone())
        return metrics, priorities

    made._step = counted
    metrics = made.update(batch, base.live_from_config(made._config))
    assert len(seen) == 6
    torch.testing.assert_close(metrics, torch.stack(seen).mean(0)[0])
    assert made.agent_steps == batch.shape[0] * batch.shape[1]


def _drawn(size, device=None):
    """Stands for torch.rand: the same numbers in each pass and rank."""
    return torch.from_numpy(np.random.default_rng(size).random(size))


def test_ranks_step_together(monkeypatch):
    """The step of a minibatch is that of the rows that all ranks drew."""
    fields = {**_KINDS["rows"], **_SMOOTH}
    more = {"learner.minibatches": 3, "learner.passes": 2}
    monkeypatch.setattr(torch, "rand", _drawn)

    def batch_of(whole, environment, policy):
        return builders.random_batch(whole, environment, policy)

    def one(group):
        made, *where = rank_twin_test._in_turn(group, 2, **fields, **more)
        batch = batch_of(*where, made.agent)
        share, _ = rank_twin_test._share(batch, None, group.rank, 2)
        made.update(share, base.live_from_config(made._config))
        return made.parameters.trainable.clone(), made._optimizer.state["steps"].clone()

    (first, steps), (second, _) = rank_threads.run(2, one)
    assert torch.equal(first, second)
    assert steps == 6
    twin, *where = rank_twin_test._make(**fields)
    batch = batch_of(*where, twin.agent)
    twin._set(base.live_from_config(twin._config))
    twin._learning_rate.fill_(twin.learning_rate())
    parts = twin._referred(batch_parts.split(batch, None, 2))
    order = _drawn(batch.shape[0] * batch.shape[1] // 2).argsort().view(3, -1)
    shares = [list(batch_parts._rows(part, ref, order)) for part, _, ref in parts]
    for both in (*zip(*shares, strict=True), *zip(*shares, strict=True)):
        twin._step(list(both))
    torch.testing.assert_close(first, twin.parameters.trainable, rtol=1e-3, atol=2e-5)


def test_a_bad_observation_in_one_step_leaves_the_statistics_alone(monkeypatch):
    """The first step is skipped, and others are made."""
    fields = {"learner.minibatches": 5, "network.normalise_observations": True}
    kind = {**_KINDS["rows"], "impact.normalise_advantages": False}
    made, policy, batch = learners.make(**kind, **fields)
    monkeypatch.setattr(torch, "rand", lambda size, device: torch.arange(size))
    bad = batch.time_step.observation.clone()
    bad[0, 0] = np.nan
    time_step = batch.time_step._replace(observation=bad)
    metrics = made.update(
        batch._replace(time_step=time_step), base.live_from_config(made._config)
    )
    assert metrics[made.metric_index[learner.SKIPPED_SHARE]] == 1.0
    assert made._optimizer.state["steps"] == 4
    assert policy.network.torso.normaliser.count == 0.0
    made.update(batch, base.live_from_config(made._config))
    assert policy.network.torso.normaliser.count == batch.shape[0] * batch.shape[1]


_ROW = {"algorithm": "impact", "target.period": 1, "loss.popart": True}
_STATE = {"state": specs.array_spec((6,), np.float32)}
_MASK = {"allowed": specs.array_spec((3,), np.bool_)}
_BOX = specs.BoxSpec((2,), np.dtype(np.float32), (-1.0, -1.0), (1.0, 1.0))
_ENVIRONMENTS = {
    "last reward": (
        specs.EnvironmentSpec(specs.array_spec((4,), np.float32), _BOX, 1),
        {"network.last_reward": True, "impact.centre_advantages": True},
    ),
    "dict, separate": (
        specs.EnvironmentSpec(
            {"a": specs.array_spec((3,), np.float32), **_STATE}, _BOX, 1
        ),
        {"network.critic": "separate"},
    ),
    "players that wait": (
        players_test._environment(**_STATE, **_MASK),
        {"impact.centre_advantages": True},
    ),
    "bfloat16": (
        specs.EnvironmentSpec(specs.array_spec((4,), np.float32), _BOX, 1),
        {"learner.precision": "bfloat16", "network.critic": "separate"},
    ),
}


def _random(environment, policy, rows=8, columns=6):
    rng = np.random.default_rng(0)
    spec = specs.trajectory_spec(
        environment, policy.output_spec(), policy.core_state_spec(), rows, columns
    )
    batch = specs.example_trajectory(environment, spec)
    for leaf in nest.flatten((batch.time_step, batch.agent_output)):
        if leaf.dtype == np.float32:
            leaf[:] = 0.3 * rng.normal(size=leaf.shape)
        elif leaf.dtype == np.bool_:
            leaf[:] = rng.random(leaf.shape) < 0.6
    kind = rng.choice([0, 1, 2], p=[0.1, 0.8, 0.1], size=(rows + 1, columns))
    batch.time_step.step_type[:] = kind
    batch.time_step.discount[:] = rng.random((rows + 1, columns)) < 0.9
    if environment.action_mask:
        batch.time_step.observation["allowed"][..., 0] = True
    return nest.map_structure(torch.from_numpy, batch)


@pytest.mark.parametrize("kind", _ENVIRONMENTS)
def test_gradients_of_minibatches_add_up_to_that_of_the_batch(kind):
    """Checks that a row of each kind takes along what its loss reads."""
    environment, fields = _ENVIRONMENTS[kind]
    config = builders.config(
        **{**_ROW, "loss.reduction": "sum", "batch_size": 6, "unroll_length": 8},
        **{"impact.normalise_advantages": True, "loss.entropy_cost": 0.01, **fields},
    )
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    made = learner.Learner(config, policy)
    batch = _random(environment, policy)
    made._set(base.live_from_config(config))
    parts = made._referred([(batch, None)])
    metrics, _ = made._add_up(parts)
    whole = made._gradient.clone()
    assert metrics.isfinite().all()
    assert whole.abs().max() > 0.0
    added = torch.zeros_like(whole)
    for minibatch in batch_parts.steps(batch, parts, 1, 4, True):
        made._add_up(minibatch)
        added += made._gradient
    near = 3e-2 if kind == "bfloat16" else 1e-4
    torch.testing.assert_close(
        added, whole, rtol=near, atol=near * whole.abs().max().item()
    )
