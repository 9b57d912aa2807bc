"""Policy lag by transition: a naive twin, and the way to TensorBoard."""

import math

import numpy as np
from tensorboard.backend.event_processing import event_accumulator

from impala_mp import lag_histogram, metrics
from tests import builders


def test_counts_equal_those_of_a_loop():
    lags = np.random.default_rng(0).integers(0, 100, size=500)
    lags[:3] = 10**6
    counts = lag_histogram.count(lags, 7)
    upper = [*lag_histogram.EDGES[1:], 10**9]
    for name, low, high in zip(
        lag_histogram.NAMES, lag_histogram.EDGES, upper, strict=True
    ):
        assert counts[name] == 7 * sum(low <= lag < high for lag in lags.tolist())
    assert sum(counts.values()) == 7 * 500


def test_what_is_taken_is_no_scalar_any_more():
    record = {"updates": 3.0, **lag_histogram.count(np.array([0, 5, 5, 70]), 2)}
    counts = lag_histogram.take(record)
    assert record == {"updates": 3.0}
    assert counts == [2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2]
    nothing = lag_histogram.count(np.array([math.nan]), 2)
    assert lag_histogram.take(nothing) == []


def test_every_lag_lies_within_its_drawn_bucket():
    for lag in (0, 1, 3, 4, 5, 11, 12, 63, 64, 100):
        counts = lag_histogram.take(lag_histogram.count(np.array([lag]), 3))
        raw = lag_histogram.raw(counts)
        (i,) = np.flatnonzero(raw.bucket_counts)
        low = raw.bucket_limits[i - 1] if i else raw.min
        assert low < lag < raw.bucket_limits[i]
        mean = (low + raw.bucket_limits[i]) / 2
        assert (raw.num, raw.sum, raw.sum_squares) == (3, 3 * mean, 3 * mean**2)
    assert raw.max == raw.bucket_limits[-1]


def test_the_learner_counts_each_transition_once(tmp_path):
    config = builders.config(**{"actors.count": 1, "actors.slots": 4})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(report=print)
    (actor,) = parts.actors
    actor.fetch()
    for _ in range(4):  # two batches, the second of which lags one update behind
        actor.unroll()
    parts.training.step()
    parts.training.step()
    parts.training.write_record()
    counts = lag_histogram.take(parts.shared.learner_record.read())
    transitions = config.batch_size * config.unroll_length
    assert counts == [transitions, transitions, *[0] * (len(counts) - 2)]
    parts.training.write_record()
    assert lag_histogram.take(parts.shared.learner_record.read()) == []


def test_it_is_a_list_in_the_file_and_a_histogram_in_tensorboard(tmp_path):
    counts = lag_histogram.take(lag_histogram.count(np.array([0, 5, 5, 70]), 2))
    record = {"agent_steps": 80, "env_frames": 80, "updates": 4, "time_secs": 1.0}
    writer = metrics.Writer(str(tmp_path))
    writer.write(record, counts)
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
