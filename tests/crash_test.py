"""Steps that are not finite: skipped, kept, repeated, traced to a trajectory."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from impala_mp import crash_file, diagnosis, errors
from tests import builders


def _train(parts, updates, spoil=None):
    parts.training.publish()
    for _ in range(updates):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        if spoil:
            spoil(parts.shared.rings.ring(1).peek(0))
        parts.training.step()


def _spoiled_reward(slot):
    slot.time_step.reward[3, 2] = np.nan


def _spoiled_state(slot):
    slot.core_state[1][0, 5] = np.inf


def _crashes(tmp_path):
    return sorted((tmp_path / "crashes").iterdir())


def _parts(tmp_path, **overrides):
    return builders.parts(builders.config(**overrides), tmp_path / "checkpoints")


_SPOILS = [
    (_spoiled_reward, "time_step/reward is nan at step 3 of the trajectory of actor 1"),
    (_spoiled_state, "core_state/1 is inf at step 0 of the trajectory of actor 1"),
]


@pytest.mark.parametrize(("spoil", "sentence"), _SPOILS, ids=["reward", "state"])
def test_a_bad_batch_is_kept_repeated_and_traced(tmp_path, spoil, sentence):
    parts = _parts(tmp_path, **{"network.core": "lstm"})
    _train(parts, 3)
    before = parts.training._learner.parameters.flat.clone()
    for one in parts.actors:
        one.fetch()
        one.unroll()
    spoil(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    assert torch.equal(before, parts.training._learner.parameters.flat)
    crash = crash_file.load(str(_crashes(tmp_path)[0]))
    assert crash.update == 4
    assert diagnosis.Diagnosis(crash).repeats()
    text = diagnosis.Diagnosis(crash).culprit()
    assert sentence in text
    assert "incarnation 0, sequence 3" in text


_IMPACT = {
    "algorithm": "impact",
    "target.period": 2,
    "loss.popart": True,
    "loss.popart_beta": 0.1,
    "optimizer.learning_rate": 0.1,
}


def _spoil_pass(the_learner, number):
    """The `number`-th pass of the next update sees a reward that is not finite."""
    step, turns = the_learner._step, itertools.count()

    def spoiled(work):
        batch, sample = work
        if next(turns) != number:
            return step(work)
        reward = batch.time_step.reward.clone()
        reward[3, 2] = np.nan
        return step(
            (batch._replace(time_step=batch.time_step._replace(reward=reward)), sample)
        )

    the_learner._step = spoiled


@pytest.mark.parametrize("passes", [1, 3])
def test_a_target_network_and_passes_are_kept_too(tmp_path, passes):
    """The target moves at the very update whose step was skipped."""
    parts = _parts(tmp_path, **_IMPACT, **{"learner.passes": passes})
    _train(parts, 3)
    the_learner = parts.training._learner
    before = {name: tensor.clone() for name, tensor in the_learner.tensors.items()}
    _spoil_pass(the_learner, passes - 1)
    _train(parts, 1)
    crash = crash_file.load(str(_crashes(tmp_path)[0]))
    assert crash.tensors.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, crash.tensors[name]), name
    target = the_learner.tensors["target"]
    assert torch.equal(target, the_learner.parameters.flat)
    assert not torch.equal(target, before["target"])
    repeated = diagnosis.Diagnosis(crash)
    _spoil_pass(repeated._learner, passes - 1)
    assert repeated.repeats()


def test_another_result_is_noticed(tmp_path):
    parts = _parts(tmp_path)
    for one in parts.actors:
        parts.training.publish()
        one.fetch()
        one.unroll()
    _spoiled_reward(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    crash = crash_file.load(str(_crashes(tmp_path)[0]))
    crash.batch[3].mul_(2.0)  # the observation
    assert not diagnosis.Diagnosis(crash).repeats()


def test_parameters_that_are_bad_are_named_by_layer(tmp_path):
    parts = _parts(tmp_path)
    parts.training.publish()
    for one in parts.actors:
        one.fetch()
        one.unroll()
    with torch.no_grad():
        parts.training._learner.agent.network.torso.encoder[0].weight[3, 3] = np.nan
    parts.training.step()
    crash = crash_file.load(str(_crashes(tmp_path)[0]))
    assert (
        "the output of torso.encoder.0 is nan" in diagnosis.Diagnosis(crash).culprit()
    )


def test_after_too_many_in_a_row_the_learner_ends(tmp_path):
    limits = {"health.max_skipped_updates": 4, "health.max_crash_files": 2}
    parts = _parts(tmp_path, **limits)
    with torch.no_grad():
        parts.training._learner.agent.network.policy.bias[0] = np.inf
    with pytest.raises(RuntimeError, match="4 updates in a row.*not finite"):
        _train(parts, 10)
    assert len(_crashes(tmp_path)) == 2


def test_good_steps_between_are_no_row(tmp_path):
    parts = _parts(tmp_path, **{"health.max_skipped_updates": 2})
    for _ in range(4):
        _train(parts, 1, _spoiled_reward)
        _train(parts, 1)
    assert len(_crashes(tmp_path)) == 4


def test_the_tool(tmp_path):
    parts = _parts(tmp_path)
    _train(parts, 1)
    for one in parts.actors:
        one.fetch()
        one.unroll()
    _spoiled_reward(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    command = [sys.executable, "-m", "impala_mp.replay_crash"]
    done = subprocess.run(
        [*command, _crashes(tmp_path)[0]], capture_output=True, text=True, timeout=120
    )
    assert "Update 2 on cpu: the same again, bit for bit." in done.stdout
    assert "First: the batch's time_step/reward is nan at step 3" in done.stdout
    bad = subprocess.run(
        [*command, "--file=nowhere"], capture_output=True, text=True, timeout=120
    )
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


def test_something_else_is_refused(tmp_path):
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(errors.BadInput, match="no crash file"):
        crash_file.load(str(tmp_path / "other.pt"))
