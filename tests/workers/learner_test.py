"""One update against a naive reference; micro-batches; numbers that go bad."""

import copy

import numpy as np
import pytest
import torch

from impala_mp import nest, specs
from impala_mp.algorithms import actor_critic, base
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.workers import learner
from tests.support import builders, learners, vtrace_twin

_LIVE = base.live_from_config(builders.config())


def _names(made):
    return learner.metric_names(made._config)


def _reference_gradient(policy, batch, config, entropy_cost):
    """The loss of the paper, trajectory by trajectory, in plain torch and NumPy."""
    network, output = learners.double_outputs(policy, batch)
    total, rewards = 0.0, batch.time_step.reward
    for b in range(batch.agent_output.action.shape[1]):
        actions = batch.agent_output.action[:, b]
        log_probs = torch.log_softmax(output.policy_logits[:-1, b], -1)
        taken = log_probs[torch.arange(len(actions)), actions]
        behaviour = torch.log_softmax(batch.agent_output.policy_logits[:, b], -1)
        log_rhos = (taken - behaviour[torch.arange(len(actions)), actions]).detach()
        values = output.baseline[:, b]
        discounts = 0.99 * batch.time_step.discount[1:, b].double().numpy()
        for start, end in learners.pieces(batch, b):
            vs, advantages = vtrace_twin.naive(
                {
                    "log_rhos": log_rhos[start:end].numpy(),
                    "discounts": discounts[start:end],
                    "rewards": rewards[start + 1 : end + 1, b].double().numpy(),
                    "values": values[start:end].detach().numpy(),
                    "bootstrap_value": values[end].detach().numpy(),
                }
            )
            piece = slice(start, end)
            total = total - (taken[piece] * torch.tensor(advantages)).sum()
            error = torch.tensor(vs) - values[piece]
            total = total + 0.5 * 0.5 * error.square().sum()
            entropy = -(log_probs[piece].exp() * log_probs[piece]).sum()
            total = total - entropy_cost * entropy
    total.backward()
    return {k: p.grad for k, p in network.named_parameters()}, total.item()


@pytest.mark.parametrize("overrides", [{}, learners.LSTM], ids=["mlp", "lstm"])
def test_the_gradient_is_the_papers(overrides):
    made, policy, batch = learners.make(**overrides, **{"optimizer.clip_norm": 0.0})
    expected, loss = _reference_gradient(policy, batch, made._config, 0.01)
    metrics = made.update(batch, _LIVE)
    assert metrics[0].item() == pytest.approx(loss, rel=1e-4)
    learners.assert_gradients(policy, expected)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(
    "overrides", [{}, learners.LSTM, learners.IMPACT], ids=["mlp", "lstm", "impact"]
)
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_micro_batches_give_the_same_update(reduction, overrides, parts):
    same = {**overrides, "loss.reduction": reduction}
    whole, _, batch = learners.make(**same)
    split, _, _ = learners.make(**same, **{"learner.micro_batches": parts})
    for _ in range(3):
        whole_metrics = whole.update(batch, _LIVE)
        split_metrics = split.update(batch, _LIVE)
    torch.testing.assert_close(
        whole.parameters.trainable, split.parameters.trainable, rtol=1e-4, atol=1e-6
    )
    if overrides is learners.IMPACT:
        a, b = (made.tensors["target"].view(torch.float32) for made in (whole, split))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for name, a, b in zip(_names(whole), whole_metrics, split_metrics, strict=True):
        if name not in _OF_PARTS:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


# Statistics of each part, averaged.
_OF_PARTS = (
    *(*actor_critic.VTRACE_METRICS, *actor_critic.DIAGNOSTICS),
    *("impact/ratio_clipped", "impact/kl_target"),
)


class _Saved:
    """A tensor kept for the backward pass, and the bytes of all that are."""

    live = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        _Saved.live += tensor.nbytes
        _Saved.peak = max(_Saved.peak, _Saved.live)

    def __del__(self):
        _Saved.live -= self.tensor.nbytes


def _peak_bytes(made, batch):
    """Of what autograd keeps during an update, the parameters left out."""
    kept = made.parameters.flat.untyped_storage().data_ptr()
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: t if t.untyped_storage().data_ptr() == kept else _Saved(t),
        lambda saved: saved.tensor if isinstance(saved, _Saved) else saved,
    )
    _Saved.live = _Saved.peak = 0
    with hooks:
        made.update(batch, _LIVE)
    assert _Saved.live == 0
    return _Saved.peak


@pytest.mark.parametrize(
    "overrides", [{}, learners.LSTM, learners.IMPACT], ids=["mlp", "lstm", "impact"]
)
def test_micro_batches_take_less_memory(overrides):
    same = {**overrides, "batch_size": 24}
    whole, _, batch = learners.make(**same)
    peak = _peak_bytes(whole, batch)
    for parts in (2, 4, 8):
        split, _, _ = learners.make(**same, **{"learner.micro_batches": parts})
        assert peak / parts * 0.9 < _peak_bytes(split, batch) < peak / parts * 1.1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop_tensorflow", "rmsprop_torch"])
def test_a_step_that_is_not_finite_changes_nothing(value, optimizer):
    made, _, batch = learners.make(**{"optimizer.name": optimizer})
    made.update(batch, _LIVE)
    before = copy.deepcopy(made.state_dict())
    bad = batch.time_step._replace(reward=batch.time_step.reward.clone())
    bad.reward[2, 3] = value
    metrics = made.update(batch._replace(time_step=bad), _LIVE)
    assert metrics[_names(made).index("health/skipped_share")] == 1
    after = made.state_dict()
    for key in ("parameters", "optimizer"):
        for name, tensor in before[key].items():
            assert torch.equal(tensor, after[key][name]), name
    metrics = made.update(batch, _LIVE)
    assert torch.isfinite(metrics).all()
    assert torch.isfinite(made.parameters.trainable).all()


def test_the_gradient_norm_is_clipped():
    made, _, batch = learners.make(**{"optimizer.clip_norm": 1e-3})
    metrics = made.update(batch, _LIVE)
    assert metrics[_names(made).index("loss/gradient_norm")] > 1e-3
    assert made._gradient.norm().item() == pytest.approx(1e-3, rel=1e-4)


def test_the_linear_schedule_ends_at_zero():
    made, _, batch = learners.make(total_agent_steps=60)
    rates = [made.learning_rate()]
    for _ in range(3):
        made.update(batch, _LIVE)
        rates.append(made.learning_rate())
    assert rates == pytest.approx([1e-3, 5e-4, 0.0, 0.0])


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop_tensorflow"])
def test_a_round_trip_resumes_bit_for_bit(optimizer):
    made, _, batch = learners.make(**{"optimizer.name": optimizer})
    made.update(batch, _LIVE)
    other, _, _ = learners.make(**{"optimizer.name": optimizer})
    other.load_state_dict(made.state_dict())
    made.update(batch, _LIVE)
    other.update(batch, _LIVE)
    assert torch.equal(made.parameters.flat, other.parameters.flat)
    assert (other.updates, other.agent_steps) == (2, 60)


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"algorithm": "dqn", "target.period": 0}, {"target.period": 3}),
        ({"optimizer.name": "rmsprop_torch"}, {"optimizer.momentum": 0.9}),
    ],
)
def test_a_change_that_adds_state_begins_it(fields, changed):
    """`--change` may give a resumed run a target network, or momentum."""
    fields = {"optimizer.momentum": 0.0, **fields}
    made, _, batch = learners.make(**fields)
    made.update(batch, _LIVE)
    other, _, _ = learners.make(**{**fields, **changed})
    other.load_state_dict(made.state_dict())
    if "target.period" in changed:
        assert torch.equal(other.tensors["target"], made.parameters.flat)
    else:
        assert not other._optimizer.state["momentum"].any()
    other.update(batch, _LIVE)
    assert other.parameters.are_finite()


def test_parameters_of_another_network_are_refused():
    made, _, _ = learners.make()
    other, _, _ = learners.make(**{"network.hidden_sizes": (17,)})
    with pytest.raises(ValueError, match="another network"):
        other.load_state_dict(made.state_dict())


@pytest.mark.parametrize("rows", ["decisions", "resets", "waits"])
def test_on_policy_every_ratio_is_one(rows):
    """Rows without a decision take no part."""
    made, policy, batch = learners.make()
    if rows != "resets":
        batch.time_step.step_type[:] = 1
    if rows == "waits":
        shape = batch.time_step.reward.shape
        acts = torch.arange(shape.numel()).view(shape) % 3 == 0
        time_step = batch.time_step._replace(acts=acts)
        batch = batch._replace(time_step=time_step)
    with torch.no_grad():
        output = policy.unroll(batch.time_step, batch.agent_output.action, ())
    behaviour = batch.agent_output._replace(policy_logits=output.policy_logits[:-1])
    metrics = made.update(
        batch._replace(agent_output=behaviour), _LIVE._replace(entropy_cost=0.0)
    )
    by_name = dict(zip(_names(made), metrics.tolist(), strict=True))
    assert by_name["vtrace/rho_mean"] == pytest.approx(1.0, abs=1e-5)
    assert by_name["vtrace/effective_sample_size"] == pytest.approx(1.0, abs=1e-5)


def test_without_correction_everything_counts_as_on_policy():
    plain, policy, batch = learners.make(**{"vtrace.correction": False})
    corrected, _, _ = learners.make()
    with torch.no_grad():
        output = policy.unroll(batch.time_step, batch.agent_output.action, ())
    behaviour = batch.agent_output._replace(policy_logits=output.policy_logits[:-1])
    plain.update(batch, _LIVE)
    corrected.update(batch._replace(agent_output=behaviour), _LIVE)
    torch.testing.assert_close(plain._gradient, corrected._gradient)


@pytest.mark.parametrize("algorithm_", ["vtrace", "impact"])
def test_without_correction_the_metrics_still_tell_how_far_off_policy(algorithm_):
    plain, _, batch = learners.make(
        **{"vtrace.correction": False, "algorithm": algorithm_}
    )
    corrected, _, _ = learners.make(algorithm=algorithm_)
    ours, theirs = (
        dict(zip(_names(made), made.update(batch, _LIVE).tolist(), strict=True))
        for made in (plain, corrected)
    )
    assert theirs["vtrace/rho_clipped"] > 0.1
    for name in actor_critic.VTRACE_METRICS:
        assert ours[name] == pytest.approx(theirs[name]), name


def test_the_loss_of_a_batch_is_that_of_its_update():
    """Per row, however many elements an action has."""
    config = builders.config(
        **{"environment.id": "tests.support.spaces:Spaces-v0", "loss.reduction": "mean"}
    )
    config.environment.kwargs = {"observation": "box", "action": "multi"}
    environment = factory.make(config.environment, 1).spec
    policy = agent.make(config, environment)
    spec = specs.trajectory_spec(
        environment, policy.output_spec(), policy.core_state_spec(), 5, 6
    )
    batch = nest.map_structure(lambda leaf: torch.from_numpy(leaf.example()), spec)
    assert batch.agent_output.action.numel() > batch.agent_output.baseline.numel()
    made = learner.Learner(config, policy)
    live = base.live_from_config(config)
    total = made.loss(batch, live).total.item()
    assert total != 0.0
    assert made.update(batch, live)[0].item() == pytest.approx(total)
