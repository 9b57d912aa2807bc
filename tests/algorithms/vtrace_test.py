"""V-trace against the paper's sum of products, and episode by episode."""

import numpy as np
import pytest
import torch

from impala_mp import types
from impala_mp.algorithms import base, vtrace
from tests.support import live_changes, vtrace_twin

# Of rho, of the advantage's rho, of c.
_THRESHOLDS = [
    vtrace_twin.ONES,
    (2.5, 1.7, 1.3),
    (3.0, 0.7, 0.5),
    (1.0, np.inf, 1.0),
    (np.inf,) * 3,
]
_T = 8  # of the tests of boundaries


def _random(num_steps, batch=4, seed=0):
    """One long episode a column, which may well terminate and go on: [T, B]."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, batch)
    spread = np.linspace(-2.5, 2.5, num_steps * batch)  # crosses every threshold
    inputs = {
        "log_rhos": rng.permutation(spread).reshape(shape),
        "discounts": rng.choice([0.0, 0.9, 0.99], shape, p=[0.1, 0.3, 0.6]),
        "rewards": rng.normal(size=shape),
        "values": rng.normal(size=shape),
        "bootstrap_value": rng.normal(size=batch),
        "learnable": np.ones(shape),
    }
    return {key: value.astype(np.float32) for key, value in inputs.items()}


def _run(inputs, thresholds=vtrace_twin.ONES, lambda_=1.0):
    rho, pg_rho, c = thresholds
    return vtrace.from_importance_weights(
        **{key: torch.tensor(value) for key, value in inputs.items()},
        clip_rho_threshold=rho,
        clip_pg_rho_threshold=pg_rho,
        clip_c_threshold=c,
        lambda_=lambda_,
    )


def _assert_close(actual, expected):
    """1e-5 of the largest element of the column (or of 1)."""
    scale = np.maximum(1.0, np.abs(expected).max(0, initial=0.0))
    np.testing.assert_allclose(
        actual.numpy() / scale, expected / scale, rtol=0.0, atol=1e-5
    )


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 20, 37, 100])
@pytest.mark.parametrize("thresholds", _THRESHOLDS)
@pytest.mark.parametrize("lambda_", [1.0, 0.7, 0.0])
def test_equals_the_papers_sum_of_products(num_steps, thresholds, lambda_):
    inputs = _random(num_steps, seed=num_steps)
    actual = _run(inputs, thresholds, lambda_)
    vs, advantages = vtrace_twin.naive(inputs, thresholds, lambda_)
    _assert_close(actual.vs, vs)
    _assert_close(actual.pg_advantages, advantages)


def _patterns():
    """{LAST row: terminated} with no, one or two ends of episodes, everywhere."""
    one = [{row: ends} for row in range(_T + 1) for ends in (True, False)]
    two = [{**a, **b} for a in one for b in one if min(b) - min(a) >= 2]
    return [{}, *one, *two]


def _with_ends(inputs, last_rows):
    """The unroll with LAST at these rows of T+1, and FIRST in the rows after them."""
    inputs = {key: value.copy() for key, value in inputs.items()}
    inputs["discounts"][:] = 0.97
    for row, terminated in last_rows.items():
        if terminated and row > 0:
            inputs["discounts"][row - 1] = 0.0
        if row < _T:
            inputs["learnable"][row] = 0.0
    return inputs


def _name(pattern):
    ends = (f"{row}{'terminated' if t else 'truncated'}" for row, t in pattern.items())
    return "-".join(ends) or "none"


@pytest.mark.parametrize("lambda_", [1.0, 0.8])
@pytest.mark.parametrize("last_rows", _patterns(), ids=_name)
def test_across_boundaries_equals_each_episode_alone(last_rows, lambda_):
    thresholds = (1.5, 1.2, 1.0)
    inputs = _with_ends(_random(_T), last_rows)
    actual = _run(inputs, thresholds, lambda_)
    starts = [0, *(row + 1 for row in last_rows)]
    stops = [*last_rows, _T]
    for start, stop in zip(starts, stops, strict=True):
        if start < stop:
            # A truncated episode bootstraps from the value of its last observation.
            vs, advantages = vtrace_twin.naive(
                vtrace_twin.rows(inputs, start, stop), thresholds, lambda_
            )
            _assert_close(actual.vs[start:stop], vs)
            _assert_close(actual.pg_advantages[start:stop], advantages)
    for row in set(last_rows) - {_T}:  # LAST to FIRST: nothing to learn
        assert torch.equal(actual.vs[row], torch.tensor(inputs["values"][row]))
        assert not actual.pg_advantages[row].any()


@pytest.mark.parametrize("last_row", range(_T))
def test_nothing_leaks_out_of_the_next_episode(last_row):
    inputs = _with_ends(_random(_T), {last_row: False})
    before = _run(inputs)
    # All of the next episode, and what the ignored action did in between.
    for key in ("log_rhos", "rewards", "discounts"):
        inputs[key][last_row:] *= 3.0
    inputs["values"][last_row + 1 :] += 1.0
    inputs["bootstrap_value"] += 1.0
    after = _run(inputs)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[: last_row + 1], new[: last_row + 1])
    assert not torch.isclose(before.vs[last_row + 1 :], after.vs[last_row + 1 :]).any()


@pytest.mark.parametrize("last_row", range(1, _T - 1))
def test_an_unroll_may_be_split_at_a_boundary(last_row):
    inputs = _with_ends(_random(_T), {last_row: False})
    whole = _run(inputs)
    earlier = _run(vtrace_twin.rows(inputs, 0, last_row))
    later = _run(vtrace_twin.rows(inputs, last_row + 1, _T))
    for all_rows, first, second in zip(whole, earlier, later, strict=True):
        _assert_close(all_rows[:last_row], first.numpy())
        _assert_close(all_rows[last_row + 1 :], second.numpy())


@pytest.mark.parametrize("num_steps", [1, 2, 6, 20])
def test_on_policy_it_is_the_n_step_bellman_target(num_steps):
    inputs = _random(num_steps)
    inputs["log_rhos"][:] = 0.0
    targets = [inputs["bootstrap_value"].astype(np.float64)]
    for t in reversed(range(num_steps)):
        targets.insert(0, inputs["rewards"][t] + inputs["discounts"][t] * targets[0])
    expected = np.array(targets[:-1])
    actual = _run(inputs)
    _assert_close(actual.vs, expected)
    _assert_close(actual.pg_advantages, expected - inputs["values"])


def test_the_ratios_are_not_clipped_and_0_where_there_is_nothing_to_learn():
    inputs = _with_ends(_random(_T), {3: False})
    expected = np.exp(inputs["log_rhos"]) * inputs["learnable"]
    np.testing.assert_allclose(_run(inputs).rhos, expected, rtol=1e-6)


def test_columns_are_independent():
    inputs = _with_ends(_random(12, batch=5), {4: True})
    order = [3, 1, 4, 0, 2]
    shuffled = _run({key: value[..., order] for key, value in inputs.items()})
    for old, new in zip(_run(inputs), shuffled, strict=True):
        assert torch.equal(old[:, order], new)


def test_no_gradient_flows():
    inputs = {
        key: torch.tensor(value, requires_grad=True)
        for key, value in _random(4).items()
    }
    returns = vtrace.from_importance_weights(**inputs)
    assert not any(output.requires_grad for output in returns)


def test_vtrace_equals_the_float64_reference_across_changes(tmp_path):
    """Epsilon from 0 to 1 and back within an unroll, and another target policy."""
    parts, batch, acted = live_changes.acted_in_mid_change(tmp_path)
    policy = parts.training._learner.agent
    with torch.no_grad():  # the learner has moved on since
        policy.network.policy.weight.mul_(-0.5)
        policy.network.policy.bias.add_(torch.tensor([0.8, -0.8]))
    target = live_changes.unrolled(policy, batch)
    output = batch.agent_output
    logits = target.policy_logits[:-1]
    distribution = policy.distribution
    learnable = base.learnable(batch)
    inputs = {
        "log_rhos": distribution.log_prob(logits, output.action)
        - distribution.log_prob(output.policy_logits, output.action),
        "discounts": batch.time_step.discount[1:] * 0.99,
        "rewards": batch.time_step.reward[1:],
        "values": target.baseline[:-1],
        "bootstrap_value": target.baseline[-1],
    }
    thresholds = (1.5, 1.2, 1.1)
    actual = vtrace.from_importance_weights(
        **inputs,
        learnable=learnable,
        clip_rho_threshold=thresholds[0],
        clip_pg_rho_threshold=thresholds[1],
        clip_c_threshold=thresholds[2],
        lambda_=1.0,
    )
    # The reference never sees what was recorded, only who acted, and how.
    exact = live_changes.log_mixture(logits.double().numpy(), 0.0, 1.0)
    mu = np.stack(
        [
            live_changes.log_mixture(acted[t], *values)
            for t, values in enumerate(live_changes.in_force())
        ]
    )
    action = output.action.numpy()[..., None]
    log_rhos = np.take_along_axis(exact - mu, action, -1)[..., 0]
    assert (log_rhos > 0.5).any()
    assert (log_rhos < -0.5).any()
    reference = {k: v.double().numpy() for k, v in inputs.items()}
    reference["log_rhos"] = log_rhos
    last = (batch.time_step.step_type == types.StepType.LAST).numpy()
    for column, start, stop in _episodes(last):
        rows = vtrace_twin.rows(reference, start, stop)
        vs, advantages = vtrace_twin.naive(rows, thresholds)
        for mine, theirs in ((actual.vs, vs), (actual.pg_advantages, advantages)):
            np.testing.assert_allclose(
                mine[start:stop, column], theirs[:, column], rtol=1e-5, atol=1e-5
            )


def _episodes(last):
    """(column, first row, row of its end) of each piece of an episode."""
    num_steps = len(last) - 1
    for column in range(last.shape[1]):
        ends = np.flatnonzero(last[:, column]).tolist()
        starts = [0, *(row + 1 for row in ends)]
        for start, stop in zip(starts, [*ends, num_steps], strict=True):
            if start < stop:
                yield column, start, stop
