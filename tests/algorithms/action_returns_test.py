"""Returns of action values against loops over single episodes, in float64."""

import numpy as np
import pytest
import torch

from impala_mp.algorithms import action_returns

_T = 9  # transitions
_GAMMA = 0.9


def _trajectory(seed, last_rows):
    """One column with LAST at the rows of {row: terminated}; FIRST follows each."""
    rng = np.random.default_rng(seed)
    learnable, discounts = np.ones(_T), np.full(_T, _GAMMA)
    for row, terminated in last_rows.items():
        if row < _T:
            learnable[row] = 0.0
        if terminated and row > 0:
            discounts[row - 1] = 0.0
    return {
        "discounts": discounts,
        "rewards": rng.normal(size=_T),
        "values": rng.normal(size=_T + 1),
        "learnable": learnable,
        "action_values": rng.normal(size=_T),
        "traces": rng.uniform(size=_T),
    }


def _episodes(column):
    """Returns (first row, row after the last transition) of each part of an episode."""
    cuts = [t for t in range(_T) if column["learnable"][t] == 0.0]
    starts = [0, *(t + 1 for t in cuts)]
    return [pair for pair in zip(starts, [*cuts, _T], strict=True) if pair[0] < pair[1]]


def _naive_n_step(column, n):
    """Each return by its own sum, within its own part of an episode."""
    returns = column["values"][:_T].copy()
    for start, end in _episodes(column):
        for t in range(start, end):
            last = min(t + n, end)
            total, weight = 0.0, 1.0
            for k in range(t, last):
                total += weight * column["rewards"][k]
                weight *= column["discounts"][k]
            returns[t] = total + weight * column["values"][last]
    return returns


def _naive_traced(column):
    """Q plus the sum of errors, each times the product of its traces."""
    q = column["action_values"]
    returns = q.copy()
    for start, end in _episodes(column):
        for t in range(start, end):
            weight = 1.0
            for k in range(t, end):
                if k > t:
                    weight *= column["discounts"][k - 1] * column["traces"][k]
                following = column["discounts"][k] * column["values"][k + 1]
                returns[t] += weight * (column["rewards"][k] + following - q[k])
    return returns


def _ends():
    """No end, one, or two, everywhere: {LAST row: terminated}."""
    one = [{row: ends} for row in range(_T + 1) for ends in (True, False)]
    two = [{**a, **b} for a in one for b in one if min(b) - min(a) >= 2]
    return [{}, *one, *two]


def _columns():
    return [_trajectory(seed, ends) for seed, ends in enumerate(_ends())]


def _stacked(columns):
    return {
        name: torch.tensor(np.stack([column[name] for column in columns], 1))
        for name in columns[0]
    }


def _n_step(columns, n):
    inputs = _stacked(columns)
    names = ("discounts", "rewards", "values", "learnable")
    return action_returns.n_step(*(inputs[name] for name in names), n).numpy()


def _traced(columns):
    return action_returns.traced(**_stacked(columns)).numpy()


@pytest.mark.parametrize("n", [1, 2, 3, 5, _T, 2 * _T])
def test_n_step_equals_a_sum_a_return(n):
    columns = _columns()
    expected = np.stack([_naive_n_step(column, n) for column in columns], 1)
    np.testing.assert_allclose(_n_step(columns, n), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, _T])
def test_n_step_of_quantiles_is_that_of_each(n):
    columns = _columns()
    inputs = _stacked(columns)
    others = [2.0 * inputs["values"] + 1.0, inputs["values"].square()]
    stacked = torch.stack([inputs["values"], *others], -1)
    rest = inputs["discounts"], inputs["rewards"]
    found = action_returns.n_step(*rest, stacked, inputs["learnable"], n)
    for i, values in enumerate((inputs["values"], *others)):
        one = [
            {**column, "values": values[:, at].numpy()}
            for at, column in enumerate(columns)
        ]
        expected = np.stack([_naive_n_step(column, n) for column in one], 1)
        np.testing.assert_allclose(found[..., i], expected, rtol=0, atol=1e-12)


def test_traces_equal_a_sum_a_return():
    columns = _columns()
    expected = np.stack([_naive_traced(column) for column in columns], 1)
    np.testing.assert_allclose(_traced(columns), expected, rtol=0, atol=1e-12)


def test_without_traces_both_are_of_one_step():
    columns = [{**column, "traces": np.zeros(_T)} for column in _columns()]
    one, traced = _n_step(columns, 1), _traced(columns)
    learned = _stacked(columns)["learnable"].numpy() > 0.0
    np.testing.assert_allclose(traced[learned], one[learned], rtol=0, atol=1e-12)


def test_on_policy_full_traces_are_the_rewards_to_the_cut():
    """Retrace with pi = mu and lambda 1, if V(x_t) is Q(x_t, a_t), as on-policy."""
    columns = _columns()
    for column in columns:
        column["traces"] = np.ones(_T)
        column["action_values"] = column["values"][:_T].copy()
    learned = _stacked(columns)["learnable"].numpy() > 0.0
    whole = _n_step(columns, _T)
    np.testing.assert_allclose(_traced(columns)[learned], whole[learned], atol=1e-12)


def test_a_truncation_keeps_the_value_that_libraries_lose():
    """rlax runs its window across an end unless the discount is 0.

    The episode of rows 0 to 3 is truncated at row 3, whose value is 7; nothing of the
    next episode may count.
    """
    column = _trajectory(0, {3: False})
    column["values"][3] = 7.0
    column["rewards"][3:] = 1e6
    column["values"][4:] = 1e6
    columns = [column]
    expected = column["rewards"][2] + _GAMMA * 7.0
    for n in (1, 3, 5):
        np.testing.assert_allclose(_n_step(columns, n)[2, 0], expected)
    assert abs(_traced(columns)[:3]).max() < 100.0


def test_a_short_trajectory_ends_at_its_own_last_value():
    """rlax pads the tail with the last value, and so counts it once more a row."""
    column = _trajectory(1, {})
    last = column["rewards"][-1] + _GAMMA * column["values"][-1]
    np.testing.assert_allclose(_n_step([column], 5)[-1, 0], last)


def test_nothing_carries_a_gradient():
    inputs = _stacked(_columns())
    for tensor in inputs.values():
        tensor.requires_grad_()
    assert not action_returns.traced(**inputs).requires_grad
    names = ("discounts", "rewards", "values", "learnable")
    found = action_returns.n_step(*(inputs[name] for name in names), 3)
    assert not found.requires_grad


# Value rescaling, in float32 against the textbook forms in float64.

_SIZES = np.logspace(-6, 6, 2001)
_BOTH_SIGNS = np.concatenate([-_SIZES[::-1], [0.0], _SIZES])


def _textbook(x):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1.0) - 1.0) + 1e-3 * x


def _textbook_inverse(y):
    """Pohlen et al. 2018, proposition A.2."""
    root = np.sqrt(1.0 + 4e-3 * (np.abs(y) + 1.0 + 1e-3))
    return np.sign(y) * (((root - 1.0) / 2e-3) ** 2 - 1.0)


def test_equals_the_textbook_form():
    """The textbook form loses digits near 0, in float64 as well: 1e-10 is its best."""
    found = action_returns.rescale(torch.tensor(_BOTH_SIGNS)).numpy()
    np.testing.assert_allclose(found, _textbook(_BOTH_SIGNS), rtol=1e-9)


def test_the_inverse_equals_the_textbook_form_where_that_has_digits():
    y = _BOTH_SIGNS[np.abs(_BOTH_SIGNS) > 1e-2]
    found = action_returns.restore(torch.tensor(y)).numpy()
    np.testing.assert_allclose(found, _textbook_inverse(y), rtol=1e-9)


def test_there_and_back_in_float32():
    x = torch.tensor(_BOTH_SIGNS, dtype=torch.float32)
    back = action_returns.restore(action_returns.rescale(x))
    np.testing.assert_allclose(back, x, rtol=2e-6)


def test_the_textbook_inverse_fails_there_in_float32():
    """Why the inverse is another formula: rlax's is wrong near 0."""
    x = torch.full((), 1e-4)
    y = action_returns.rescale(x)
    root = torch.sqrt(1.0 + 4e-3 * (y.abs() + 1.0 + 1e-3))
    textbook = ((root - 1.0) / 2e-3).square() - 1.0
    assert abs(textbook - x) > 0.05 * x
    assert abs(action_returns.restore(y) - x) < 1e-6 * x


def test_both_are_odd_and_increase():
    x = torch.tensor(_BOTH_SIGNS)
    for function in (action_returns.rescale, action_returns.restore):
        y = function(x)
        assert (y.diff() > 0.0).all()
        torch.testing.assert_close(function(-x), -y, rtol=0, atol=0)
