"""PopArt against the paper's moments in float64; outputs that stay; publication."""

import copy

import numpy as np
import pytest
import torch

from impala_mp.algorithms import base
from impala_mp.networks import popart
from impala_mp.workers import learner
from tests.support import builders, learners

_SIZE = 7
_ONE = torch.ones(())


def _head():
    torch.manual_seed(0)
    head = popart.PopArtHead(_SIZE)
    with torch.no_grad():
        head.bias.normal_()
    return head


def _late(head):
    """Numbers of batches, after which the step size is beta."""
    return torch.full_like(head.mean, 1e6)


def _adapt(head, targets, learnable=None, beta=0.1, finite=_ONE, parts=1):
    learnable = torch.ones_like(targets) if learnable is None else learnable
    pieces = zip(targets.chunk(parts, 1), learnable.chunk(parts, 1), strict=True)
    moments = sum(head.moments(*piece) for piece in pieces)
    head.adapt(moments, beta, finite, _late(head))


def _targets(mean, std, seed):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn((5, 6), generator=generator)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (-3, 0.1), (50, 2000), (9e3, 0.5)])
@pytest.mark.parametrize("parts", [1, 3])
def test_statistics_are_the_papers_and_outputs_stay(mean, std, parts):
    head, inputs = _head(), torch.randn(40, _SIZE)
    first, second = 0.0, 1.0  # the paper's mu and nu, in float64
    for turn in range(60):
        targets = _targets(mean, std, turn)
        learnable = (torch.rand(targets.shape) < 0.8).float()
        before = head(inputs).detach()
        scale = max(before.abs().max().item(), head.mean.abs().item())
        _adapt(head, targets, learnable, parts=parts)
        error = (head(inputs) - before).abs().max().item()
        assert error < 1e-5 * (scale + abs(mean) + std)
        seen = targets[learnable > 0].double().numpy()
        first = 0.9 * first + 0.1 * np.mean(seen)
        second = 0.9 * second + 0.1 * np.mean(seen**2)
    assert head.mean.item() == pytest.approx(first, rel=1e-5)
    assert head.scale.item() == pytest.approx(np.sqrt(second - first**2), rel=1e-4)


@pytest.mark.parametrize(
    ("targets", "learnable", "finite"),
    [
        (5.0, 1.0, 0.0),
        (np.nan, 1.0, 0.0),
        (np.nan, 1.0, 1.0),
        (np.inf, 1.0, 1.0),
        (3e30, 1.0, 1.0),
        (5.0, 0.0, 1.0),
    ],
)
def test_nothing_changes_by_what_is_skipped_or_not_finite(targets, learnable, finite):
    head = _head()
    _adapt(head, _targets(3.0, 9.0, 0))
    before = copy.deepcopy(head.state_dict())
    shape = (5, 6)
    _adapt(
        head,
        torch.full(shape, targets),
        torch.full(shape, learnable),
        finite=torch.tensor(finite),
    )
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def _learned(head, batches, reward_scale, offset, turns=470):
    """Errors of values after some updates, relative to the deviation of targets."""
    inputs = torch.randn(64, _SIZE)
    weights = torch.linspace(-1.0, 1.0, _SIZE)
    targets = offset + reward_scale * (inputs @ weights)
    learnable = torch.ones(64, 1)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for turn in range(turns):
        if turn:
            error = (targets - head(inputs).squeeze(-1)) / head.scale
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
        moments = head.moments(targets.unsqueeze(-1), learnable)
        head.adapt(moments, 3e-4, _ONE, batches)
    error = head(inputs).squeeze(-1) - targets
    return (error.detach().square().mean().sqrt() / targets.std()).item()


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1.0, 0.0), (1e8, 0.0), (1e12, -1e12), (1.0, 1e5), (30.0, -1e6), (1e-3, 0.0)],
)
def test_values_are_learned_at_any_scale_and_offset(scale, offset):
    head, batches = _head(), torch.zeros(1)
    assert _learned(head, batches, scale, offset) < 0.1
    assert batches.item() == 470


def test_statistics_begin_at_the_first_batchs_moments():
    head, batches = _head(), torch.zeros(1)
    parameters = [head.weight.clone(), head.bias.clone()]
    targets = _targets(1e5, 2.0, 0)
    head.adapt(head.moments(targets, torch.ones(5, 6)), 3e-4, _ONE, batches)
    assert head.mean.item() == pytest.approx(targets.mean().item(), rel=1e-6)
    spread = targets.double().std(correction=0).item()
    assert head.scale.item() == pytest.approx(spread, rel=1e-4)
    assert torch.equal(head.weight, parameters[0])
    assert torch.equal(head.bias, parameters[1])
    seen = [targets]
    for turn in range(1, 5):  # the mean of all batches, and outputs that stay
        seen.append(_targets(1e5 + turn, 2.0, turn))
        inputs = torch.randn(40, _SIZE)
        before = head(inputs).detach()
        head.adapt(head.moments(seen[-1], torch.ones(5, 6)), 3e-4, _ONE, batches)
        torch.testing.assert_close(head(inputs).detach(), before)
    everything = torch.stack(seen).double()
    assert head.mean.item() == pytest.approx(everything.mean().item(), rel=1e-6)
    spread = everything.std(correction=0).item()
    assert head.scale.item() == pytest.approx(spread, rel=1e-3)


def test_the_first_batch_counts_when_a_task_has_one():
    head, batches = popart.PopArtHead(_SIZE, 2), torch.zeros(2)
    targets, task = _targets(7.0, 2.0, 0), torch.zeros(5, 6, dtype=torch.int64)
    moments = head.moments(targets, torch.ones(5, 6), task)
    head.adapt(moments, 3e-4, torch.zeros(()), batches)
    assert batches.tolist() == [0, 0]  # a skipped step
    head.adapt(moments, 3e-4, _ONE, batches)
    head.adapt(head.moments(targets, torch.ones(5, 6), task + 1), 3e-4, _ONE, batches)
    assert batches.tolist() == [1, 1]
    assert head.mean[0] == head.mean[1] == pytest.approx(targets.mean().item())


@pytest.mark.parametrize("value", [0.0, 1e5])
def test_equal_targets_have_no_scale(value):
    """The first batch of a sparse reward, for example."""
    head, batches = _head(), torch.zeros(1)
    learnable = torch.ones(5, 6)
    head.adapt(head.moments(learnable * value, learnable), 3e-4, _ONE, batches)
    assert head.mean.item() == value
    assert head.scale.item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("scale", [1e8, 1e12])
def test_the_first_batch_of_a_learner_only_gives_the_scale(scale):
    made, policy, batch = learners.make(**{"loss.popart": True})
    batch.time_step.reward.normal_(generator=torch.Generator().manual_seed(0))
    batch.time_step.reward.add_(3.0).mul_(scale)
    live = base.live_from_config(made._config)
    before = made.parameters.trainable.clone()
    made.update(batch, live)
    head = policy.network.baseline
    assert torch.equal(made.parameters.trainable, before)
    assert 0.1 < head.scale.item() / scale < 30.0
    made.update(batch, live)
    names = learner.metric_names(made._config)
    metrics = dict(zip(names, made.raw_metrics.tolist(), strict=True))
    assert metrics["loss/gradient_norm"] < 1e3  # at unit scale, summed over the batch
    assert not torch.equal(made.parameters.trainable, before)


def test_a_checkpoint_without_the_number_of_batches_is_past_the_start():
    overrides = {"loss.popart": True}
    made, policy, batch = learners.make(**overrides)
    live = base.live_from_config(made._config)
    for _ in range(3):
        made.update(batch, live)
    state = made.state_dict()
    assert state["popart_batches"].tolist() == [3]
    again, _, _ = learners.make(**overrides)
    again.load_state_dict(state)
    for one in (made, again):
        one.update(batch, live)
    assert torch.equal(made.parameters.flat, again.parameters.flat)
    del state["popart_batches"]
    state["updates"] = 5000
    old, _, _ = learners.make(**overrides)
    old.load_state_dict(state)
    assert old._popart_batches.tolist() == [5000]


def test_the_scale_has_bounds():
    head = _head()
    for _ in range(300):
        _adapt(head, torch.full((5, 6), 2.0), beta=0.5)
    assert head.scale.item() == pytest.approx(1e-4)
    assert head(torch.randn(4, _SIZE)).isfinite().all()


_PLAIN = {"impact.normalise_advantages": False, "impact.kl_cost": 0.0}


@pytest.mark.parametrize("baseline", ["squared", "huber"])
@pytest.mark.parametrize("name", ["vtrace", "impact"])
def test_gradients_are_those_of_normalised_values(baseline, name):
    """With sigma 100: the loss in the head's own units, advantages over sigma."""
    algorithm = {"algorithm": name, **_PLAIN}
    overrides = {**algorithm, "loss.baseline": baseline, "loss.popart": True}
    made, policy, batch = learners.make(**overrides, **{"loss.popart_beta": 1e-9})
    head = policy.network.baseline
    with torch.no_grad():
        head.variance.fill_(1e4)
        head.mean.fill_(30.0)
        head.bias.add_(0.1)
    made._algorithm.after_update(0)  # the target takes it over
    live = base.live_from_config(made._config)._replace(entropy_cost=0.0)
    made.loss(batch, live).total.backward()

    plain, plain_policy, _ = learners.make(**algorithm)
    network = plain_policy.network
    network.load_state_dict(policy.network.state_dict(), strict=False)
    with torch.no_grad():  # the same values from a plain head
        network.baseline.weight.mul_(100.0)
        network.baseline.bias.mul_(100.0).add_(30.0)
    plain._algorithm.after_update(0)
    output = plain.unroll(batch)
    plain._config.loss.baseline_cost = 0.0
    plain_loss = plain.loss(batch, live)
    policy_gradient = plain_loss.total
    error = (output.baseline[:-1] - plain_loss.elements["vtrace/vs"]) / 100.0
    terms = 0.5 * error.square()
    if baseline == "huber":
        terms = torch.where(error.abs() <= 1.0, terms, error.abs() - 0.5)
    (policy_gradient / 100.0 + 0.5 * (terms * base.learnable(batch)).sum()).backward()
    for (key, a), (_, b) in zip(
        policy.network.named_parameters(), network.named_parameters(), strict=True
    ):
        expected = b.grad * 100.0 if key.startswith("baseline") else b.grad
        torch.testing.assert_close(a.grad, expected, rtol=1e-4, atol=1e-5, msg=key)


def test_statistics_are_published_with_the_parameters(tmp_path):
    overrides = {"loss.popart": True, "loss.popart_beta": 0.1}
    parts = builders.parts(builders.config(**overrides), tmp_path)
    parts.training.publish()
    for _ in range(3):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        parts.training.step()
    mine = parts.training._learner.agent.network.baseline
    assert mine.mean.item() != 0.0
    for one in parts.actors:
        one.fetch()
        theirs = one.parties[0]._agent.network.baseline
        for name in ("weight", "bias", "mean", "variance"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_a_whole_update_moves_statistics_once_and_reports_it():
    overrides = {"loss.popart": True, "loss.popart_beta": 0.2}
    made, policy, batch = learners.make(**overrides)
    names = learner.metric_names(made._config)
    live = base.live_from_config(made._config)
    metrics = dict(zip(names, made.update(batch, live).tolist(), strict=True))
    head = policy.network.baseline
    assert metrics["popart/mean"] == head.mean.item() != 0.0
    assert metrics["popart/scale"] == head.scale.item() != 1.0
    before = copy.deepcopy(head.state_dict())
    made.update(batch, live._replace(entropy_cost=np.nan))  # targets are fine
    batch.time_step.reward[1, 1] = np.nan
    made.update(batch, live)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_head_of_action_values_has_one_scale_a_task():
    """Outputs of all actions stay when the statistics of their task move."""
    torch.manual_seed(0)
    head = popart.PopArtHead(_SIZE, num_tasks=2, num_outputs=3)
    inputs, task = torch.randn(40, _SIZE), torch.arange(40) % 2
    for turn in range(20):
        targets = _targets(50.0, 9.0, turn)
        tasks = torch.zeros(targets.shape, dtype=torch.int64)
        before = head(inputs, task).detach()
        moments = head.moments(targets, torch.ones_like(targets), tasks)
        head.adapt(moments, 0.1, _ONE, _late(head))
        torch.testing.assert_close(head(inputs, task), before, rtol=1e-5, atol=1e-4)
    assert head.scale[0] > 5.0
    assert head.scale[1] == 1.0  # it has seen nothing
    weight, bias = head.weight.view(2, 3, _SIZE), head.bias.view(2, 3)
    for i in range(4):
        own = weight[task[i]] @ inputs[i] + bias[task[i]]
        expected = own * head.scale[task[i]] + head.mean[task[i]]
        torch.testing.assert_close(head(inputs, task)[i], expected)


def test_a_head_of_action_values_without_tasks():
    head = popart.PopArtHead(_SIZE, num_outputs=3)
    inputs = torch.randn(4, 5, _SIZE)
    assert head(inputs).shape == (4, 5, 3)
    before = head(inputs).detach()
    _adapt(head, _targets(-30.0, 4.0, 0))
    torch.testing.assert_close(head(inputs), before, rtol=1e-5, atol=1e-5)
