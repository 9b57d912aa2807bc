"""Replay in a whole training: batches, accounting, crashes, checkpoints, learning."""

import numpy as np
import pytest

from impala_mp import errors, nest
from impala_mp.evaluation import diagnosis, evaluate
from impala_mp.runtime import program
from impala_mp.storage import checkpoint, crash_file
from impala_mp.workers import policy_lag
from tests.support import builders, lockstep_runs

pytestmark = pytest.mark.usefixtures("_without_pictures")

_REPLAY = {"replay.ratio": 0.5, "replay.memory_mib": 0.1}


def _parts(tmp_path, **overrides):
    config = builders.config(**{**_REPLAY, **overrides})
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)
    return parts


def _turn(parts, number, spoil=lambda slot: None):
    """An unroll of one actor, which is half of a batch, and an update."""
    one = parts.actors[number % 2]
    one.fetch()
    one.unroll()
    spoil(parts.shared.rings.ring(number % 2).peek(0))
    parts.training.step()


class _Watched:
    """Keeps copies of what the batcher gives."""

    def __init__(self, training):
        self._take, self.batches = training._batcher.take, []
        training._batcher.take = self

    def __call__(self):
        batch = self._take()
        copied = nest.map_structure(
            lambda leaf: np.asarray(leaf).copy(),
            (batch.trajectory, batch.header, batch.sample),
        )
        self.batches.append((batch.num_fresh, *copied))
        return batch


def test_a_batch_is_half_fresh_and_half_of_what_was_there_before(tmp_path):
    parts = _parts(tmp_path, **{"replay.priority_exponent": 0.8})
    watched = _Watched(parts.training)
    for number in range(30):
        _turn(parts, number)
    seen = {}
    for number, (num_fresh, trajectory, header, sample) in enumerate(watched.batches):
        assert num_fresh == 3
        assert sample.replayed.tolist() == [0, 0, 0, 1, 1, 1]
        assert sample.weight[:3].tolist() == [1, 1, 1]
        assert sample.weight[3:].max() == 1
        assert (header.sequence[:3] == number // 2).all()  # of its ring
        for column in range(6):
            content = b"".join(
                leaf[:, column].tobytes()
                for leaf in nest.flatten(
                    [trajectory.time_step, trajectory.agent_output]
                )
            )
            name = tuple(int(words[column]) for words in header)
            if column < 3:
                seen.setdefault(name, set()).add(content)
            else:
                assert content in seen[name]
    assert min(b[3].weight.min() for b in watched.batches) < 0.99


def test_only_what_is_fresh_is_counted(tmp_path):
    parts = _parts(tmp_path)
    training, watched = parts.training, _Watched(parts.training)
    for number in range(20):
        _turn(parts, number)
    lags = training.updates.lags.metrics()
    assert sum(policy_lag.take(lags)) == 60 * 5
    assert lags["lag/max"] <= 1
    assert len(np.concatenate(training.updates.ages)) == 60
    ends = [batch[1].time_step.step_type[1:, :3] == 2 for batch in watched.batches]
    assert training._games.metrics()["episode/count"] == np.sum(ends) > 0
    training.write_record()
    record = parts.shared.learner_record.read()[-1]
    assert record["health/learned"] == record["health/committed"] == 60
    assert record["agent_steps"] == 60 * 5
    assert record["replay/size"] == 60
    assert record["replay/weight_mean"] == 1.0
    assert 0 < record["replay/age_mean_updates"] < 20


def test_without_replay_the_record_has_no_word_of_it(tmp_path):
    parts = _parts(tmp_path, **{"replay.ratio": 0.0})
    parts.training.write_record()
    names = parts.shared.learner_record.read()[-1]
    assert not any("replay" in name or "cloning" in name for name in names)


def test_the_detector_looks_at_what_is_fresh(tmp_path):
    parts = _parts(tmp_path, **{"health.drift_interval": 1})
    detector = parts.training._drift
    for number in range(6):
        _turn(parts, number)
        # As if what is stored had been made by another network.
        for array, *_ in (leaf.arrays for leaf in parts.training._replay._leaves):
            if array.shape[1:] == (5, 3):  # the logits
                array[..., 0] += 5.0
    assert detector.alarms == 0
    assert 0.0 <= detector.worst < 1e-4
    batch = parts.training._batcher.take
    for one in parts.actors:
        one.unroll()
    batch = batch()
    batch.parameter_version[:] = [7, 7, 7, 3, 3, 3]
    detector._version, detector._compare = 3, None  # would be called
    assert detector.look(batch) == ""


def _spoiled_reward(slot):
    slot.time_step.reward[3, 2] = np.nan


def test_a_bad_trajectory_is_kept_repeated_and_not_replayed_again(tmp_path):
    fields = {"replay.clear_value_cost": 0.1, "replay.priority_exponent": 1.0}
    parts = _parts(tmp_path, **fields)
    for number in range(3):
        _turn(parts, number)
    _turn(parts, 3, _spoiled_reward)
    crashes = sorted((tmp_path / "crashes").iterdir())
    crash = crash_file.load(str(crashes[0]))
    assert [leaf.shape for leaf in crash.sample] == [(6,), (6,)]
    assert crash.sample[0].min() < 1.0
    assert diagnosis.Diagnosis(crash).repeats()
    assert "time_step/reward is nan at step 3" in diagnosis.Diagnosis(crash).culprit()
    crash.sample[0].fill_(1.0)
    assert not diagnosis.Diagnosis(crash).repeats()
    for number in range(4, 40):
        _turn(parts, number)
    assert len(list((tmp_path / "crashes").iterdir())) == 1


@pytest.mark.parametrize(
    "fields", [{"replay.memory_mib": 0.001}, {"replay.ratio": 0.6}]
)
def test_bad_input_is_refused_before_anything_is_there(tmp_path, fields):
    config = builders.config(**{**_REPLAY, **fields})
    with pytest.raises(errors.BadInput, match=r"replay\.(memory_mib|ratio)"):
        program.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_memory_that_is_not_there_is_refused(tmp_path):
    config = builders.config(**{**_REPLAY, "replay.memory_mib": 2.0**40})
    with pytest.raises(errors.BadInput, match=r"config.replay.memory_mib"):
        program.train(config, str(tmp_path / "run"))


_LOCKSTEP = {
    "optimizer.schedule": "constant",
    "replay.ratio": 0.5,
    "replay.memory_mib": 0.05,
    "replay.save": True,
}
_VARIANTS = {
    "uniform": {"replay.clear_policy_cost": 0.01},
    "prioritised": {
        "replay.priority_exponent": 0.6,
        "replay.eviction": "priority",
        # Beta depends on where a run ends, and here that is moved.
        "replay.importance_exponent": 1.0,
        "replay.trust_region": 0.1,
    },
    "lstm": {
        **lockstep_runs.VARIANTS["lstm"],
        "replay.burn_in": True,
        "replay.priority_exponent": 0.6,
        "replay.importance_exponent": 1.0,
    },
}


def _train(path, updates=40, **overrides):
    steps = updates * 7 * 4
    return lockstep_runs.train(path, total_agent_steps=steps, **overrides)


@pytest.mark.parametrize("name", _VARIANTS)
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, name):
    same = {**_LOCKSTEP, **_VARIANTS[name]}
    whole = _train(tmp_path / "whole", **same)
    for updates in (13, 14, 40):
        parts = _train(tmp_path / "parts", updates, **same)
        assert parts["learner"]["updates"] == updates
    for state in (whole, parts):
        del state["replay"]["arrays"][-8:]  # versions and headers: incarnations, times
    for key in (*lockstep_runs.LEARNED, "replay"):
        lockstep_runs.assert_same(whole[key], parts[key], key)
    assert whole["replay"]["num_inserted"] == 40 * 4
    assert len(whole["replay"]["serials"]) < 40 * 4  # something was evicted


def test_a_replay_that_is_not_saved_starts_empty(tmp_path):
    same = {**_LOCKSTEP, "replay.save": False}
    _train(tmp_path / "run", 13, **same)
    assert "replay" not in checkpoint.load_newest(
        str(tmp_path / "run/checkpoints"), print
    )
    state = _train(tmp_path / "run", 14, **{**same, "replay.save": True})
    assert state["replay"]["num_inserted"] == 4  # began empty


def test_catch_is_learned_with_replay(tmp_path):
    config = lockstep_runs.config(
        **{
            "total_agent_steps": 40_000,
            "actors.environments": 16,
            "actors.count": 2,
            "batch_size": 32,
            "unroll_length": 10,
            "loss.entropy_cost": 0.003,
            "loss.reduction": "mean",
            "optimizer.learning_rate": 3e-3,
            "optimizer.clip_norm": 0.5,
            "evaluation.episodes": 50,
            "replay.ratio": 0.5,
            "replay.memory_mib": 1.0,
            "replay.priority_exponent": 0.6,
            "replay.clear_policy_cost": 0.01,
            "replay.clear_value_cost": 0.005,
        }
    )
    program.train(config, str(tmp_path))
    assert evaluate.evaluate(str(tmp_path), 50)["mean"] > 0.9
