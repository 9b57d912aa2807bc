"""Policy lag by transition: a naive twin, and the way to TensorBoard."""

import math

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from impala_mp.storage import metrics
from impala_mp.workers import policy_lag
from tests.support import builders


def _metrics(*lags):
    made = policy_lag.Lags()
    made.add(0, -np.array(lags)[None])
    return made.metrics()


def test_counts_equal_those_of_a_loop():
    rng, made, seen = np.random.default_rng(0), policy_lag.Lags(), []
    for highest, mixed in ((10, False), (10, True), (100, True), (1000, False)):
        lags = rng.integers(0, highest, (7, 50))
        if not mixed:
            lags[:] = lags[0]
        made.add(2000, 2000 - lags)
        seen += lags.ravel().tolist()
    found = made.metrics()
    upper = [*policy_lag.EDGES[1:], 10**9]
    for name, low, high in zip(policy_lag.NAMES, policy_lag.EDGES, upper, strict=True):
        assert found[name] == sum(low <= lag < high for lag in seen)
    assert sum(found[name] for name in policy_lag.NAMES) == len(seen) == 1400
    assert found["lag/mean"] == pytest.approx(np.mean(seen))
    assert found["lag/max"] == max(seen)
    for share in (50, 95):
        expected = np.percentile(seen, share, method="inverted_cdf")
        assert found[f"lag/p{share}"] == expected
    made.clear()
    made.add(3, np.array([[1]]))
    assert made.metrics() == _metrics(2)


def test_taking_the_counts_leaves_the_statistics():
    found = _metrics(0, 0, 5, 5, 5, 5, 70, 70)
    statistics = {name: found[name] for name in policy_lag.STATISTICS}
    counts = policy_lag.take(found)
    assert found == statistics
    assert counts == [2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2]
    nothing = policy_lag.Lags().metrics()
    assert policy_lag.take(nothing) == []
    assert all(math.isnan(value) for value in nothing.values())


def test_every_lag_lies_within_its_drawn_bucket():
    for lag in (0, 1, 3, 4, 5, 11, 12, 63, 64, 100):
        counts = policy_lag.take(_metrics(lag, lag, lag))
        raw = policy_lag.raw(counts)
        (i,) = np.flatnonzero(raw.bucket_counts)
        low = raw.bucket_limits[i - 1] if i else raw.min
        assert low < lag < raw.bucket_limits[i]
        mean = (low + raw.bucket_limits[i]) / 2
        assert (raw.num, raw.sum, raw.sum_squares) == (3, 3 * mean, 3 * mean**2)
    assert raw.max == raw.bucket_limits[-1]


def test_unrolls_of_more_than_one_version_are_counted():
    made = policy_lag.Lags()
    assert made.add(3, np.array([[3, 0, 1], [3, 1, 1], [3, 1, 2]])) == 2
    assert made.add(4, np.array([[4, 4], [4, 4]])) == 0
    made.clear()
    assert made.mixed_unrolls == 2


@pytest.mark.parametrize("forged", [False, True])
def test_a_change_of_parameters_within_an_unroll_shows(tmp_path, forged, capsys):
    """By transition: two of five rows acted with what was published meanwhile."""
    config = builders.config(**{"actors.count": 1, "batch_size": 3})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(report=print)
    (actor,) = parts.actors
    step, rows = actor._environment.step, iter(range(5))

    def step_and_publish(action):
        if next(rows) == 2:
            parts.training.publish()
            if forged:
                actor.fetch()
        return step(action)

    actor._environment.step = step_and_publish
    actor.fetch()
    actor.unroll()
    parts.training.step()
    parts.training.write_record()
    record = parts.shared.learner_record.read()[-1]
    assert record["health/mixed_unrolls"] == (3 if forged else 0)
    assert ("More than one version" in capsys.readouterr().out) is forged
    new = 2 * 3 if forged else 0
    counts = policy_lag.take(record)
    assert counts == [new, 15 - new, *[0] * (len(counts) - 2)]
    assert record["lag/mean"] == (15 - new) / 15


def test_the_learner_counts_each_transition_once(tmp_path):
    config = builders.config(**{"actors.count": 1, "actors.slots": 4})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(report=print)
    (actor,) = parts.actors
    parts.training.write_record()
    assert policy_lag.take(parts.shared.learner_record.read()[-1]) == []
    actor.fetch()
    for _ in range(4):  # two batches, the second of which lags one update behind
        actor.unroll()
    parts.training.step()
    parts.training.step()
    parts.training.write_record()
    counts = policy_lag.take(parts.shared.learner_record.read()[-1])
    transitions = config.batch_size * config.unroll_length
    assert counts == [transitions, transitions, *[0] * (len(counts) - 2)]
    actor.fetch()
    for _ in range(2):
        actor.unroll()
    parts.training.step()
    parts.training.write_record()
    counts = policy_lag.take(parts.shared.learner_record.read()[-1])
    assert counts == [transitions, *[0] * (len(counts) - 1)]


def test_it_is_a_list_in_the_file_and_a_histogram_in_tensorboard(tmp_path):
    counts = policy_lag.take(_metrics(0, 0, 5, 5, 5, 5, 70, 70))
    record = {"agent_steps": 80, "env_frames": 80, "updates": 4, "time_secs": 1.0}
    writer = metrics.Writer(str(tmp_path))
    writer.write(record, {policy_lag.HISTOGRAM: policy_lag.raw(counts)})
    writer.write({**record, "agent_steps": 100})
    writer.close()
    first, second = metrics.read(str(tmp_path))
    assert first == {**record, "lag/histogram": counts}
    assert "lag/histogram" not in second
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Histograms("lag/histogram")
    assert event.step == 80
    assert list(event.histogram_value.bucket) == counts
    assert event.histogram_value.num == 8
