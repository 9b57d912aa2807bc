"""Policy lag on purpose: as old as was asked for, in the data and the record."""

import numpy as np
import pytest
import torch

from impala_mp.transport import parameter_store
from impala_mp.workers import publisher
from tests.support import builders


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_the_output_is_what_was_pushed_so_long_ago(delay):
    flat = torch.zeros(3, dtype=torch.uint8)
    line = publisher.DelayLine(flat, delay)
    for push in range(20):
        flat.fill_(push)
        line.push()
        assert line.output.tolist() == [max(0, push - delay)] * 3
        assert line.depth == min(push, delay)


def test_a_round_trip_resumes():
    delay = 3
    flat = torch.zeros(1, dtype=torch.uint8)
    line, other = (publisher.DelayLine(flat, delay) for _ in range(2))
    for push in range(7):
        flat.fill_(push)
        line.push()
    other.load_state_dict(line.state_dict())
    assert torch.equal(other.output, line.output)
    for push in range(7, 12):
        flat.fill_(push)
        line.push()
        other.push()
        assert other.output.item() == line.output.item() == push - delay


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_publisher_counts_the_delay_as_lag_also_after_a_restart(delay):
    flat = torch.zeros(8, dtype=torch.uint8)
    store, into = parameter_store.ParameterStore(8), np.empty(8, np.uint8)
    made = publisher.Publisher(flat, store, delay)
    for push in range(20):
        if push == 10 and delay:
            state, made = made.state_dict(), publisher.Publisher(flat, store, delay)
            made.load_state_dict(state)
            assert made.republish() == store.latest == push + 1
            assert store.fetch(into) == push + 1
            assert (into == push - 1 - delay).all()
        flat.fill_(push)
        version = made.publish()
        assert version == store.fetch(into) == push + 1 + (push >= 10 and delay > 0)
        assert (into == max(0, push - delay)).all()
        assert made.newest - version == push - into[0]


def test_actors_act_with_the_parameters_of_so_many_updates_ago(tmp_path):
    """And the drift detector, which knows what was published, finds nothing wrong."""
    config = builders.config(
        **{"actors.policy_delay": 4, "health.drift_interval": 1, "actors.slots": 1}
    )
    parts = builders.parts(config, tmp_path)
    parts.training.restore(report=print)
    history = [parts.training._learner.parameters.flat.clone()]
    for update in range(12):
        for each in parts.actors:
            each.fetch()
            each.unroll()
            acting = torch.from_numpy(each.parties[0].parameters.buffer)
            assert torch.equal(acting, history[max(0, update - 4)])
        parts.training.step()
        history.append(parts.training._learner.parameters.flat.clone())
        assert parts.training.updates.lags.metrics()["lag/max"] == min(update, 4)
    assert parts.training._drift.alarms == 0
    assert parts.training._drift.worst < 1e-4
