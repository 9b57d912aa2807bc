"""Live hyperparameters that change within unrolls, and what they should give."""

import functools
import itertools

import numpy as np
import torch

from tests.support import builders

UNROLL = 12
LSTM = {
    "environment.id": "tests.support.short_cartpole:ShortCartPole-v0",
    "network.core": "lstm",
    "unroll_length": UNROLL,
}


# Agent step of the unroll: what is set before it.
CHANGES = {
    3: {"epsilon": 1.0},
    6: {"epsilon": 0.0, "temperature": 3.0},
    8: {"epsilon": 0.4},
    10: {"epsilon": 0.0, "temperature": 1.0},
}


def in_force():
    """The (epsilon, temperature) of each row, by the table."""
    now, rows = {"epsilon": 0.0, "temperature": 1.0}, []
    for t in range(UNROLL):
        now.update(CHANGES.get(t, {}))
        rows.append((now["epsilon"], now["temperature"]))
    return rows


def before_rows(one, actions):
    """Calls `actions[t]()` before row t of the next unroll of `one`."""
    step, rows = type(one._environment).step, itertools.count(1)

    def step_and_act(action):
        result = step(one._environment, action)
        actions.get(next(rows), lambda: None)()
        return result

    one._environment.step = step_and_act


def change_between_rows(parts, one):
    """A person changes values while `one` acts."""
    override = parts.shared.control.override
    before_rows(one, {t: functools.partial(override, c) for t, c in CHANGES.items()})


def log_mixture(logits, epsilon, temperature):
    """float64, term by term."""
    p = np.exp(logits / temperature - (logits / temperature).max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log((1.0 - epsilon) * p + epsilon / logits.shape[-1])


def unrolled(policy, batch):
    with torch.no_grad():
        return policy.unroll(
            batch.time_step, batch.agent_output.action, batch.core_state
        )


def acted_in_mid_change(tmp_path):
    """(parts, a batch of one slot, the acting network's logits in float64)."""
    config = builders.config(**{**LSTM, "actors.count": 1, "batch_size": 3})
    parts = builders.parts(config, tmp_path)
    policy = parts.training._learner.agent
    with torch.no_grad():  # from the start, actions are all but equally likely
        policy.network.policy.weight.mul_(1e4)
    parts.training.publish()
    one = parts.actors[0]
    one.fetch()
    change_between_rows(parts, one)
    one.unroll()
    batch = builders.make_batcher(parts.shared).take().trajectory
    acted = unrolled(policy, batch).policy_logits[:-1].double().numpy()
    return parts, batch, acted


SCHEDULES = {
    "schedules.epsilon": "linear(0.5, 0.1, 1500)",
    "schedules.temperature": "piecewise(1, 500, 2, 1000, 1)",
    "schedules.entropy_cost": "exponential(0.1, 0.001, 2000)",
    "schedules.learning_rate_factor": "linear(1, 0.5, 1e3)",
    "optimizer.schedule": "constant",
}
