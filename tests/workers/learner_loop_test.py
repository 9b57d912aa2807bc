"""What the learner's side of a run keeps: checkpoints on demand, and counts."""

import numpy as np
import pytest

from impala_mp.storage import checkpoint
from impala_mp.workers import accounting, builders as worker_builders
from tests.support import builders


def _run(folder, **overrides):
    """As a supervisor starts it: with the newest checkpoint's counts, and restored."""
    parts = builders.parts(builders.config(**overrides), folder)
    state = checkpoint.load_newest(str(folder), print) or {}
    learner = parts.shared.topology.learner()
    accounting.carry_over(parts.shared.row(learner), state.get("counts", {}))
    parts.training.restore(print)
    return parts


def _act(parts, spoil=lambda slot: None):
    for i, one in enumerate(parts.actors):
        one.fetch()
        one.unroll()
        ring = parts.shared.rings.ring(i)
        spoil(ring.peek(ring.num_committed() - 1))


def _record(parts):
    parts.training.write_record()
    return parts.shared.learner_record.read()


def _counts(record):
    names = ("committed", "learned", "discarded", "in_flight")
    return [record[f"health/{name}"] for name in names]


def test_a_record_without_news_says_the_means_again(tmp_path):
    """The one before may not have been read: so the last of a run has them too."""
    parts = _run(tmp_path, **{"replay.ratio": 0.5, "loss.popart": True})
    for _ in range(4):
        _act(parts)
        parts.training.step()
    first = _record(parts)
    means = {
        key: first[key]
        for key in first
        if key.startswith(("loss/", "lag/", "time/", "popart/", "replay/"))
    }
    assert means["replay/weight_mean"] == 1.0
    assert np.isfinite(list(means.values())).sum() > 20
    second = _record(parts)
    assert str({key: second[key] for key in means}) == str(means)  # NaN is itself
    _act(parts)
    parts.training.step()
    assert _record(parts)["loss/total"] != means["loss/total"]


@pytest.mark.parametrize("interval_secs", [0.0, 1000.0])
def test_a_checkpoint_can_be_had_while_the_learner_waits(
    tmp_path, monkeypatch, interval_secs
):
    """And one that is due by the clock is written once, not again and again."""
    parts = _run(tmp_path, **{"checkpoint.interval_secs": interval_secs})
    training, control = parts.training, parts.shared.control
    _act(parts)
    training.step()
    saved, there = [], []
    save = training.save
    monkeypatch.setattr(
        training, "save", lambda *extra: saved.append(1) or save(*extra)
    )

    def wait(timeout_secs):
        there.append(sorted(path.name for path in tmp_path.iterdir()))
        if len(there) == 2:
            control.ask_for_save()
        if len(there) == 5:
            control.stop()
        return False

    monkeypatch.setattr(training._batcher, "wait", wait)
    training.run()
    assert there[2:] == [["1"]] * 3
    assert len(saved) == (3 if interval_secs == 0.0 else 2)  # and at the end


def test_counts_go_on_in_a_run_that_is_gone_on_with(tmp_path):
    """6 trajectories a batch, and 6 in the rings that the end of the run takes."""
    first = _run(tmp_path)
    for _ in range(2):
        _act(first)
        first.training.step()
    _act(first)
    first.training.save()
    assert _counts(_record(first)) == [18, 12, 0, 6]
    second = _run(tmp_path)
    assert _counts(_record(second)) == [18, 12, 6, 0]
    _act(second)
    second.training.step()
    assert _counts(_record(second)) == [24, 18, 6, 0]
    # A learner that goes on from the same checkpoint again, in the same run.
    third = worker_builders.make_learner(
        second.shared.topology.learner(), second.shared
    )
    third.restore(print)
    third.write_record()
    assert _counts(second.shared.learner_record.read()) == [24, 18, 6, 0]


def test_no_record_is_ahead_of_the_checkpoint_of_its_update(tmp_path):
    """Else a run that goes on from there would count backwards."""
    parts = _run(tmp_path)
    _act(parts)
    parts.training.step()
    parts.training.save()
    _act(parts)
    assert _counts(_record(parts)) == _counts(_record(_run(tmp_path)))
    parts.training.step()
    assert _counts(_record(parts)) == [12, 12, 0, 0]


def test_skipped_updates_and_alarms_go_on(tmp_path):
    def spoil(slot):
        slot.time_step.reward[3, 2] = np.nan

    def skip(parts):
        _act(parts, spoil)
        parts.training.step()

    first = _run(tmp_path)
    skip(first)
    assert _record(first)["health/updates_skipped"] == 1
    skip(first)
    first.training._drift.alarms = 4
    first.training.save()
    skip(first)
    assert _record(first)["health/updates_skipped"] == 3
    second = _record(_run(tmp_path))
    assert second["health/updates_skipped"] == 2  # at the checkpoint's update
    assert second["health/drift_alarms"] == 4
