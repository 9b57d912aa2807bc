"""Rows in which a player waits change nothing: returns of its decisions alone."""

import functools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from impala_mp import nest, specs, types
from impala_mp.algorithms import action_returns, base, registry, vtrace
from impala_mp.networks import agent, flat_parameters
from tests.support import builders, vtrace_twin

_GAMMA = 0.9
FIRST, MID, LAST = types.StepType


def _column(seed, num_steps):
    """Rows of one player: its episodes, its turns, and times in which it is gone."""
    rng = np.random.default_rng(seed)
    kinds, terminated = [], []
    left = int(rng.integers(0, 6))  # rows until the end; 0: gone
    for t in range(num_steps + 1):
        if left == 0:
            kinds.append(LAST)
            left = -int(rng.integers(0, 3))  # further rows of absence
            terminated.append(bool(rng.integers(2)))
            continue
        if left < 0:
            kinds.append(LAST)
            terminated.append(False)
            left += 1
            left = left or int(rng.integers(1, 7))
            continue
        starts = not kinds or kinds[-1] == LAST
        kinds.append(FIRST if starts and t else MID)
        terminated.append(False)
        left -= 1
    kinds = np.array(kinds)
    acts = (rng.random(num_steps + 1) < rng.random()) & (kinds != LAST)
    discount = 1.0 - np.array(terminated, float)
    return kinds, acts, discount, rng.normal(size=num_steps + 1)


def _inputs(kinds, acts, discount, reward, seed):
    """Arguments of V-trace: [T, 1] each, in float64."""
    rng = np.random.default_rng(seed)
    learnable = (kinds[:-1] != LAST).astype(float)
    waits = learnable * ~acts[:-1]
    return {
        "log_rhos": rng.normal(size=len(learnable)) * 1.5 * (1.0 - waits),
        "discounts": discount[1:] * np.where(acts | (kinds == LAST), _GAMMA, 1.0)[1:],
        "rewards": reward[1:],
        "values": rng.normal(size=len(learnable)),
        "learnable": learnable,
        "waits": waits,
    }, rng.normal()


def _without_waiting(inputs):
    """The rows that do not wait; later rewards are added to those before."""
    kept = np.flatnonzero(inputs["waits"] == 0)
    ends = np.append(kept[1:], len(inputs["waits"]))[: len(kept)]
    spans = list(zip(kept, ends, strict=True))
    discount = [
        inputs["discounts"][a] * inputs["discounts"][a + 1 : b].prod() for a, b in spans
    ]
    found = {key: inputs[key][kept] for key in ("log_rhos", "values", "learnable")}
    found["rewards"] = np.array([inputs["rewards"][a:b].sum() for a, b in spans])
    found["discounts"] = np.array(discount)
    return found, kept


def _tensors(inputs, bootstrap_value):
    made = {key: torch.tensor(value)[:, None] for key, value in inputs.items()}
    return {**made, "bootstrap_value": torch.tensor([bootstrap_value])}


@hypothesis.settings(deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    num_steps=st.integers(1, 40),
    thresholds=st.sampled_from(
        [vtrace_twin.ONES, (0.6, 0.8, 0.5), (9.0, 4.0, 2.0), (np.inf,) * 3]
    ),
    lambda_=st.sampled_from([1.0, 0.9, 0.5, 0.0]),
)
def test_vtrace_equals_that_of_the_decisions_alone(
    seed, num_steps, thresholds, lambda_
):
    inputs, bootstrap = _inputs(*_column(seed, num_steps), seed)
    own, kept = _without_waiting(inputs)
    if not len(kept):
        return
    rho, pg_rho, c = thresholds
    run = functools.partial(
        vtrace.from_importance_weights,
        clip_rho_threshold=rho,
        clip_pg_rho_threshold=pg_rho,
        clip_c_threshold=c,
        lambda_=lambda_,
    )
    all_rows = run(**_tensors(inputs, bootstrap))
    decisions = run(**_tensors(own, bootstrap))
    for mine, theirs in zip(all_rows, decisions, strict=True):
        torch.testing.assert_close(mine[kept], theirs, rtol=0, atol=1e-12)
    waits = inputs["waits"] > 0
    for name in ("pg_advantages", "rhos", "deltas"):
        found = getattr(all_rows, name)[waits]
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    num_steps=st.integers(1, 40),
    lambda_=st.sampled_from([1.0, 0.7, 0.0]),
)
def test_traced_action_values_equal_those_of_the_decisions_alone(
    seed, num_steps, lambda_
):
    inputs, bootstrap = _inputs(*_column(seed, num_steps), seed)
    own, kept = _without_waiting(inputs)
    if not len(kept):
        return
    rng = np.random.default_rng(seed)
    taken, greedy = rng.normal(size=num_steps), rng.random(num_steps) < 0.5

    def targets(rows, where, waits=None):
        each = {k: torch.tensor(v)[:, None] for k, v in rows.items() if k != "waits"}
        values = torch.cat([each["values"], torch.tensor([[bootstrap]])])
        action_values = torch.tensor(taken[where])[:, None]
        traces = lambda_ * torch.tensor(greedy[where])[:, None].double()
        if waits is not None:
            waits = torch.tensor(waits)[:, None]
            values = action_returns.until_decision(
                values, each["rewards"], each["discounts"], waits
            )
            action_values = torch.where(waits > 0, values[:-1], action_values)
            traces = torch.where(waits > 0, waits, traces)
        return action_returns.traced(
            each["discounts"],
            each["rewards"],
            values,
            action_values,
            traces,
            each["learnable"],
        )

    everything = np.arange(num_steps)
    found = targets(inputs, everything, inputs["waits"])[kept]
    torch.testing.assert_close(found, targets(own, kept), rtol=0, atol=1e-12)


# In the losses.

_OVERRIDES = {
    "vtrace": {"algorithm": "vtrace"},
    "no entropy": {"algorithm": "vtrace", "loss.entropy_cost": 0.0},
    "impact": {"algorithm": "impact", "target.period": 2, "impact.kl_cost": 0.5},
    "normalised": {
        "algorithm": "impact",
        "target.period": 2,
        "impact.normalise_advantages": True,
    },
    "centred": {
        "algorithm": "impact",
        "impact.normalise_advantages": True,
        "impact.centre_advantages": True,
        "loss.entropy_cost": 0.0,
    },
    "popart": {"algorithm": "vtrace", "loss.popart": True},
}


def _batch(environment, policy, rows=12, columns=6, seed=0):
    """A batch of random games by turns."""
    rng = np.random.default_rng(seed)
    spec = specs.trajectory_spec(
        environment, policy.output_spec(), policy.core_state_spec(), rows, columns
    )
    batch = specs.example_trajectory(environment, spec)
    each = [_column(seed + i, rows) for i in range(columns)]
    kinds, acts, discount, reward = (np.stack(x, 1) for x in zip(*each, strict=True))
    batch.time_step.step_type[:] = kinds
    batch.time_step.acts[:] = acts
    batch.time_step.discount[:] = discount
    batch.time_step.reward[:] = reward
    batch.time_step.observation[:] = rng.normal(size=(rows + 1, columns, 4))
    batch.agent_output.action[:] = rng.integers(3, size=(rows, columns))
    logits = batch.agent_output.policy_logits
    logits[:] = rng.normal(size=logits.shape)
    return nest.map_structure(torch.from_numpy, batch)


def _environment():
    return specs.EnvironmentSpec(
        specs.array_spec((4,), np.float32),
        specs.DiscreteSpec(3),
        1,
        players=("a", "b"),
        waits=True,
    )


@pytest.mark.parametrize("overrides", _OVERRIDES.values(), ids=_OVERRIDES)
def test_rows_that_wait_have_no_part_in_the_policy_gradient(overrides):
    config = builders.config(**overrides)
    torch.manual_seed(0)
    policy = agent.make(config, _environment())
    online = flat_parameters.FlatParameters(policy.network)
    algorithm = registry.make(config, policy, online)
    batch = _batch(_environment(), policy)
    learnable, decides = base.learnable(batch) > 0, base.decides(batch) > 0
    assert all(mask.any() for mask in (learnable & ~decides, decides, ~learnable))
    outputs = []

    def unroll(rows):
        made = policy.unroll(rows.time_step, rows.agent_output.action, rows.core_state)
        outputs.append(type(made)(*(each.detach().requires_grad_() for each in made)))
        return outputs[-1]

    live = base.live_from_config(config)
    (reference,) = algorithm.references([batch], unroll, live)
    loss = algorithm.loss(batch, None, reference, unroll, live, 12 * 6)
    loss.total.backward()
    of_logits, of_values = (each.grad[:-1] for each in outputs[-1])
    assert of_logits[decides].abs().amax(-1).min() > 0
    assert not of_logits[~decides].any()
    assert of_values[learnable].abs().min() > 0
    assert not of_values[~learnable].any()
