"""V-trace in float64, by a double loop."""

import numpy as np

ONES = (1.0, 1.0, 1.0)


def _clip(ratios, threshold):
    return np.minimum(ratios, threshold)


def naive(inputs, thresholds=ONES, lambda_=1.0):
    """Equation 1 of the paper in float64, term by term; knows nothing of boundaries."""
    rho_bar, pg_rho_bar, c_bar = thresholds
    log_rhos, discounts, rewards, values, bootstrap_value = (
        np.asarray(inputs[key], np.float64)
        for key in ("log_rhos", "discounts", "rewards", "values", "bootstrap_value")
    )
    ratios = np.exp(log_rhos)
    v = np.concatenate([values, bootstrap_value[None]])
    deltas = _clip(ratios, rho_bar) * (rewards + discounts * v[1:] - v[:-1])
    factors = discounts * lambda_ * _clip(ratios, c_bar)
    vs = v.copy()
    for s in range(len(ratios)):
        for t in range(s, len(ratios)):
            vs[s] += np.prod(factors[s:t], axis=0) * deltas[t]
    next_vs = lambda_ * vs[1:] + (1.0 - lambda_) * v[1:]
    advantages = _clip(ratios, pg_rho_bar) * (rewards + discounts * next_vs - v[:-1])
    return vs[:-1], advantages


def rows(inputs, start, stop):
    """Rows start..stop-1 alone: their bootstrap value is that of row `stop`."""
    all_values = np.concatenate([inputs["values"], inputs["bootstrap_value"][None]])
    rows = {k: v[start:stop] for k, v in inputs.items() if k != "bootstrap_value"}
    return {**rows, "bootstrap_value": all_values[stop]}
