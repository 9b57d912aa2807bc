"""Minibatches: each transition once a pass, and the steps of a naive twin."""

import pytest
import torch

from impala_mp import nest
from impala_mp.algorithms import base
from impala_mp.workers import batch_parts
from tests.support import learners, rank_threads
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
    drawn = list(batch_parts.shuffled(parts, count, by_row))
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


def test_a_single_minibatch_is_the_batch():
    _, _, batch = learners.make()
    parts = [(batch, None, ())]
    assert list(batch_parts.shuffled(parts, 1, True)) == [parts]


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
    # Adam divides by the gradient's size: epsilon keeps rounding errors small.
    fields = {
        "learner.passes": 2,
        "optimizer.learning_rate": 0.1,
        "optimizer.epsilon": 0.1,
        "loss.reduction": "mean",
    }
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


def test_ranks_step_together():
    """Each rank draws its share's minibatches, and all have the same parameters."""
    fields = {**_KINDS["rows"], "learner.minibatches": 3, "learner.passes": 2}

    def one(group):
        made, whole, environment = rank_twin_test._in_turn(group, 2, **fields)
        batch = rank_twin_test.builders.random_batch(whole, environment, made.agent)
        share, _ = rank_twin_test._share(batch, None, group.rank, 2)
        made.update(share, base.live_from_config(whole))
        return made.parameters.flat.clone(), made._optimizer.state["steps"].clone()

    (first, steps), (second, _) = rank_threads.run(2, one)
    assert torch.equal(first, second)
    assert steps == 6


def test_a_resumed_learner_draws_the_same(tmp_path):
    live = None
    states = []
    for restarts in (False, True):
        made, _, batch = _make("rows", **{"learner.minibatches": 5})
        live = base.live_from_config(made._config)
        torch.manual_seed(3)
        made.update(batch, live)
        if restarts:
            saved, drawn = made.state_dict(), torch.get_rng_state()
            made, _, _ = _make("rows", **{"learner.minibatches": 5})
            made.load_state_dict(saved)
            torch.set_rng_state(drawn)
        made.update(batch, live)
        states.append(made.parameters.flat.clone())
    assert torch.equal(*states)


def test_what_a_loss_reads_is_enough(monkeypatch):
    """The parts that rows leave out are read by no loss: they are ()."""
    made, _, batch = _make("rows", **{"learner.minibatches": 3})
    ((part, *_),) = next(batch_parts.shuffled(made._referred([(batch, None)]), 3, True))
    assert (part.episode_end, part.parameter_version, part.header) == ((), (), ())
    assert len(nest.flatten(part.time_step)) >= 4
