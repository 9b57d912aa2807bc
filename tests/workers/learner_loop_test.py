"""What the learner's side of a run keeps: checkpoints on demand, and counts."""

import os
import time

import numpy as np
import pytest
import torch

from impala_mp.monitoring import live_control
from impala_mp.storage import checkpoint
from impala_mp.workers import accounting, builders as worker_builders, learner_process
from tests.support import builders, live_changes


def _run(folder, **overrides):
    """As a supervisor starts it: with the newest checkpoint's counts, and restored."""
    parts = builders.parts(builders.config(**overrides), folder)
    state = checkpoint.load_newest(str(folder), print) or {}
    accounting.carry_over(parts.shared.control.books[0], state.get("counts", {}))
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
    return parts.shared.learner_record.read()[-1]


def _counts(record):
    names = ("committed", "learned", "discarded", "in_flight")
    return [record[f"health/{name}"] for name in names]


def test_a_record_without_news_repeats_the_means(tmp_path):
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


def test_the_first_checkpoint_of_a_run_comes_early(tmp_path, monkeypatch):
    parts = _run(tmp_path, **{"checkpoint.interval_secs": 1000.0})
    training, now = parts.training, time.monotonic()
    _act(parts)
    training.step()
    assert not training.save_is_due()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11.0)
    assert training.save_is_due()
    assert training.save()
    training.checkpoints.saved_update = -1  # there is something new
    monkeypatch.setattr(time, "monotonic", lambda: now + 60.0)
    assert not training.save_is_due()


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

    def wait(bells, timeout_secs):
        there.append(sorted(path.name for path in tmp_path.iterdir()))
        if len(there) == 2:
            control.ask_for_save()
        if len(there) == 5:
            control.stop()
        return False

    monkeypatch.setattr(learner_process.doorbell, "wait_for_any", wait)
    learner_process.run([training], deadline_secs=1.0)
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
    assert _counts(second.shared.learner_record.read()[-1]) == [24, 18, 6, 0]


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


# No game has ended yet, Catch has no numbers, and there is no GPU.
_ABSENT = ("episode", "env/", "memory/")


@pytest.mark.parametrize("limit", [0, 1])
def test_no_trajectory_is_older_than_the_limit_and_no_actor_blocks(tmp_path, limit):
    config = builders.config(**{"max_policy_lag": limit, "actors.slots": 1})
    parts = builders.parts(config, tmp_path)
    parts.training.restore(print)
    rings = [parts.shared.rings.ring(i) for i in range(2)]
    for turn in range(60):
        one, ring = parts.actors[turn % 2], rings[turn % 2]
        if turn % 7 != 3 and ring.has_space():  # an uneven pair
            if turn % 5:
                one.fetch()
            one.unroll()
        if parts.training.ready():
            parts.training.step()
            assert parts.training.updates.lags.metrics()["lag/max"] <= limit
        parts.training._accounts.counts()
    assert parts.training._learner.updates > 10
    if limit == 0:
        assert parts.shared.control.books[0].get("discarded") > 0


def test_accounting_and_checkpoints_of_training(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.restore(print)
    for _ in range(4):
        builders.act(parts)
        parts.training.step()
    builders.act(parts)
    parts.training.write_record()
    record = parts.shared.learner_record.read()[-1]
    assert record["health/committed"] == 30
    assert record["health/learned"] == 24
    assert record["health/in_flight"] == 6
    assert record["updates"] == 4
    assert record["agent_steps"] == 4 * 5 * 6
    assert not [
        k for k, v in record.items() if np.isnan(v) and not k.startswith(_ABSENT)
    ]
    parts.training.save()
    # The learner is killed with a batch in hand, and another takes its seat.
    builders.make_batcher(parts.shared).take()
    again = worker_builders.make_learner(parts.shared.topology.learner(), parts.shared)
    again.restore(print)
    record = parts.shared.learner_record.read()[-1]
    assert record["updates"] == record["restored/updates"] == 4
    assert record["health/discarded"] == 6
    assert record["health/in_flight"] == 0
    assert torch.equal(
        again._learner.parameters.flat, parts.training._learner.parameters.flat
    )


def test_a_batch_that_went_missing_is_noticed(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.restore(print)
    builders.act(parts)
    builders.make_batcher(parts.shared).take()  # somebody else's hand
    with pytest.raises(RuntimeError, match="lost or counted twice"):
        parts.training.write_record()


def test_every_update_uses_the_values_of_its_schedules(tmp_path):
    config = builders.config(**live_changes.SCHEDULES)
    parts = builders.parts(config, tmp_path)
    learner, seen = parts.training._learner, []
    update = learner.update

    def watched(batch, live, sample):
        seen.append((learner.agent_steps, live.entropy_cost))
        return update(batch, live, sample)

    learner.update = watched
    parts.training.restore(print)
    for _ in range(5):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        parts.training.step()
    assert seen == [
        (steps, 0.1 * 0.01 ** (steps / 2000)) for steps in range(0, 150, 30)
    ]
    parts.shared.control.override({"entropy_cost": 0.7})
    parts.training.write_record()
    record = parts.shared.learner_record.read()[-1]
    assert record["live/entropy_cost"] == 0.7  # a person comes before a schedule
    assert record["live/epsilon"] == pytest.approx(0.5 - 0.4 * 150 / 1500)
    assert record["loss/learning_rate"] == pytest.approx(1e-3 * (1 - 0.5 * 0.15))
    assert record["live/clip_rho_threshold"] == 1.0
    parts.shared.control.override({"entropy_cost": None})
    assert parts.shared.control.get("entropy_cost") == 0.1 * 0.01 ** (150 / 2000)


def test_overrides_are_in_the_checkpoint_and_stay(tmp_path):
    parts = builders.parts(builders.config(), tmp_path / "checkpoints")
    parts.training.restore(print)
    parts.shared.control.override({"entropy_cost": 0.5, "clip_rho_threshold": np.inf})
    parts.training.save()
    state = checkpoint.load_newest(str(tmp_path / "checkpoints"), print)
    assert state["overrides"] == {"entropy_cost": 0.5, "clip_rho_threshold": np.inf}
    values = live_control.of(builders.shared(builders.config(), tmp_path))
    sentences = live_control.restore(values, state["overrides"])
    control = values.control
    assert (control.get("entropy_cost"), control.get("epsilon")) == (0.5, 0.0)
    assert "entropy_cost stays 0.5, as set by impala-ctl" in sentences[0]
    values = live_control.of(builders.shared(builders.config(), tmp_path))
    (kept,) = live_control.restore(values, state["overrides"], ["loss.entropy_cost"])
    assert kept.startswith("clip_rho_threshold stays inf")
    assert values.control.overrides() == {"clip_rho_threshold": np.inf}


def test_a_change_after_the_checkpoint_of_an_update_is_in_its_last_one(tmp_path):
    parts = builders.parts(builders.config(), tmp_path / "checkpoints")
    parts.training.restore(print)
    values = ({"epsilon": 0.25}, {"epsilon": 0.75}, {"epsilon": None})
    for change, expected in zip(values, (*values[:2], {}), strict=True):
        parts.shared.control.override(change)
        parts.training.save()  # all of one update
        state = checkpoint.load_newest(str(tmp_path / "checkpoints"), print)
        assert state["overrides"] == expected
    before = os.stat(tmp_path / "checkpoints" / "0" / "state.pt").st_ino
    parts.training.save()  # nothing has changed since
    assert os.stat(tmp_path / "checkpoints" / "0" / "state.pt").st_ino == before
