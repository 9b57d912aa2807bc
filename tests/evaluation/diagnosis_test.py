"""Steps that are not finite: kept, repeated, traced to a trajectory."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from impala_mp import errors
from impala_mp.evaluation import diagnosis
from impala_mp.storage import crash_file
from impala_mp.workers import learner, nonfinite
from tests.support import builders, crashes


def _spoiled_state(slot):
    slot.core_state[1][0, 5] = np.inf


_UNWATCHED = {"health.drift_interval": 0}
_IMPACT_PLAIN = {"algorithm": "impact"}
_REPLAYED = {"replay.ratio": 0.5, "replay.clear_value_cost": 0.1, "batch_size": 12}
_SPOILS = [
    (
        crashes.spoiled_reward,
        "time_step/reward is nan at step 3 of the trajectory of actor 1",
    ),
    (_spoiled_state, "core_state/1 is inf at step 0 of the trajectory of actor 1"),
]


@pytest.fixture(autouse=True)
def _threads():
    """As many as before: a diagnosis takes those of the step."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _huge_reward(slot):
    slot.time_step.reward[3, 2] = 1e30


def _huge_rewards(slot):  # each finite, what they come to is not
    slot.time_step.reward[3, 2] = slot.time_step.reward[2, 2] = 3e38


def _large_rewards(slot):  # each square is finite, their sum is not
    slot.time_step.reward[4] = (1.4e19, 1.5e19, 1.4e19)


def _large_reward(slot):  # so is the loss, but not the norm of its gradient
    slot.time_step.reward[3, 2] = 1.5e19


_FINITE = [
    (_huge_reward, "First: loss/baseline is inf at step 2 of", "whose reward is 1e+30"),
    (_huge_rewards, "First: vtrace/vs is inf at step 1 of", "whose reward is 3e+38"),
    (
        _large_rewards,
        "First: loss/total is inf, but all elements of the loss are finite; the"
        " largest: loss/baseline is 5.625e+37 at step 3 of",
        "whose reward is 1.5e+19",
    ),
    (
        _large_reward,
        "First: loss/gradient_norm is inf, but all elements of the loss are finite; the"
        " largest: loss/baseline is 5.625e+37 at step 2 of",
        "whose reward is 1.5e+19",
    ),
]


@pytest.mark.parametrize(("spoil", "begins", "ends"), _FINITE)
@pytest.mark.parametrize("more", [{}, _IMPACT_PLAIN, _REPLAYED], ids=str)
def test_an_overflow_is_traced_to_its_trajectory(tmp_path, spoil, begins, ends, more):
    parts = crashes.parts(tmp_path, **{"loss.discount_factor": 0.9, **more})
    crashes.train(parts, 3)
    crashes.train(parts, 1, spoil)
    (path,) = crashes.files(tmp_path)
    crash = crash_file.load(str(path))
    assert diagnosis.Diagnosis(crash).repeats()
    text = f"First: {diagnosis.Diagnosis(crash).culprit()}"
    assert text.startswith(begins)
    assert "actor 1 (incarnation 0, sequence 3, parameter version 5)" in text
    assert text.endswith(ends)


def noisy_torso(observation_spec, config):
    """For `network.torso`: what it drops is drawn anew in each update."""
    size = int(np.prod(observation_spec.shape))
    layers = torch.nn.Flatten(), torch.nn.Linear(size, 16), torch.nn.Dropout()
    return torch.nn.Sequential(*layers)


def test_the_random_draws_of_a_step_are_repeated(tmp_path):
    parts = crashes.parts(tmp_path, **{"network.torso": f"{__name__}:noisy_torso"})
    crashes.train(parts, 2)
    crashes.train(parts, 1, _huge_reward)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert diagnosis.Diagnosis(crash).repeats()
    assert "loss/baseline is inf" in diagnosis.Diagnosis(crash).culprit()


@pytest.mark.parametrize("space", ["box", "tuple", "dict"])
def test_a_step_with_nested_observations_and_actions_is_repeated(tmp_path, space):
    config = builders.config(
        **{"environment.id": "tests.support.spaces:Spaces-v0", **_UNWATCHED}
    )
    config.environment.kwargs = {"observation": space, "action": space}
    parts = builders.parts(config, tmp_path / "checkpoints")
    crashes.train(parts, 1)
    crashes.train(parts, 1, crashes.spoiled_reward)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert diagnosis.Diagnosis(crash).repeats()
    culprit = diagnosis.Diagnosis(crash).culprit()
    assert "time_step/reward is nan at step 3 of" in culprit


@pytest.mark.integration
def test_the_threads_of_the_step_are_taken_again(tmp_path, monkeypatch):
    """Sums over many transitions are cut by them: the last bits differ."""
    many = {"unroll_length": 600, "actors.environments": 30, "batch_size": 60}
    parts = crashes.parts(tmp_path, **_IMPACT_PLAIN, **many, **_UNWATCHED)
    torch.set_num_threads(3)
    # Keeps a step with a finite norm.
    monkeypatch.setattr(nonfinite, "_METRIC", learner.GRADIENT_NORM)
    crashes.train(parts, 1)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    torch.set_num_threads(1)
    repeated = diagnosis.Diagnosis(crash)
    assert torch.get_num_threads() == 3
    assert repeated.repeats()


@pytest.mark.parametrize("rows", [6, 8])
@pytest.mark.parametrize("layer", ["torso.encoder.0", "core.recurrent", "policy"])
def test_a_layer_is_named_with_the_row_of_its_output(tmp_path, rows, layer):
    """As many rows as trajectories or not: row 4 of actor 0's last column."""
    core = {"network.core": "lstm", "unroll_length": rows - 1, **_UNWATCHED}
    parts = crashes.parts(tmp_path, **core)
    network = parts.training._learner.agent.network
    module, calls = dict(network.named_modules())[layer], itertools.count()

    def spoil(module, inputs, output):
        output = output.clone()
        if layer == "core.recurrent":
            if next(calls) % rows == 4:
                output[2] = np.nan
        elif layer == "policy":
            output[4, 2] = np.nan
        else:
            output[4 * 6 + 2] = np.nan
        return output

    crashes.train(parts, 1)
    for one in parts.actors:
        one.fetch()
        one.unroll()
    hook = module.register_forward_hook(spoil)
    parts.training.step()
    hook.remove()
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    made = diagnosis.Diagnosis(crash)
    calls = itertools.count()
    again = dict(made._policy.network.named_modules())[layer]
    again.register_forward_hook(spoil)
    text = made.culprit()
    assert text.startswith(f"the output of {layer} is nan at step 4 of the trajectory")
    assert "actor 0 (incarnation 0, sequence 1" in text


@pytest.mark.parametrize(("spoil", "sentence"), _SPOILS, ids=["reward", "state"])
def test_a_bad_batch_is_kept_repeated_and_traced(tmp_path, spoil, sentence):
    parts = crashes.parts(tmp_path, **{"network.core": "lstm"})
    crashes.train(parts, 3)
    before = parts.training._learner.parameters.flat.clone()
    for one in parts.actors:
        one.fetch()
        one.unroll()
    spoil(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    assert torch.equal(before, parts.training._learner.parameters.flat)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert crash.update == 4
    assert diagnosis.Diagnosis(crash).repeats()
    text = diagnosis.Diagnosis(crash).culprit()
    assert sentence in text
    assert "incarnation 0, sequence 3" in text


def test_rows_before_a_replayed_trajectory_are_blamed_if_they_are_there(tmp_path):
    burn_in = {"network.core": "lstm", "replay.burn_in": True}
    parts = crashes.parts(tmp_path, **_REPLAYED, **burn_in)
    crashes.train(parts, 3)
    for one in parts.actors:
        one.fetch()
        one.unroll()
    crashes.spoiled_reward(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    names = crash_file.names(diagnosis.Diagnosis(crash)._batch)
    leaves = dict(zip(names, crash.batch, strict=True))
    leaves["time_step/reward"].nan_to_num_()
    leaves["before/there"][:] = torch.tensor([True] * 5 + [False])
    leaves["before/core_state/0"][4:, 2] = np.nan  # of one that is there, of one not
    header = {k: int(v[6 + 4]) for k, v in crash.header.items()}
    culprit = diagnosis.Diagnosis(crash).culprit()
    assert culprit.startswith("the batch's before/core_state/0 is nan at step 0 of")
    sequence = f"(incarnation 0, sequence {header['sequence']},"
    assert f"trajectory of actor {header['actor']} {sequence}" in culprit
    leaves["before/there"][4] = False
    assert diagnosis.Diagnosis(crash)._in_batch() == ""


_IMPACT = {
    "algorithm": "impact",
    "target.period": 2,
    "loss.popart": True,
    "loss.popart_beta": 0.1,
    "optimizer.learning_rate": 0.1,
}


@pytest.mark.parametrize(("passes", "minibatches"), [(1, 1), (3, 1), (2, 3)])
def test_a_target_network_and_steps_are_kept_too(tmp_path, passes, minibatches):
    """The target moves at the very update whose step was skipped."""
    steps = {"learner.passes": passes, "learner.minibatches": minibatches}
    parts = crashes.parts(tmp_path, **_IMPACT, **steps)
    crashes.train(parts, 3)
    the_learner = parts.training._learner
    before = {name: tensor.clone() for name, tensor in the_learner.tensors.items()}
    builders.spoil_step(the_learner, passes * minibatches - 1)
    crashes.train(parts, 1)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert crash.tensors.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, crash.tensors[name]), name
    target = the_learner.tensors["target"]
    assert torch.equal(target, the_learner.parameters.flat)
    assert not torch.equal(target, before["target"])
    repeated = diagnosis.Diagnosis(crash)
    builders.spoil_step(repeated._learner, passes * minibatches - 1)
    assert repeated.repeats()


_IQN = {"algorithm": "iqn", "target.period": 2, "learner.passes": 2}


@pytest.mark.parametrize("more", [{}, {"learner.micro_batches": 2}], ids=str)
def test_drawn_fractions_of_quantiles_are_drawn_again(tmp_path, monkeypatch, more):
    parts = crashes.parts(tmp_path, **_IQN, **more)
    crashes.train(parts, 3)
    # Keeps a step with a finite norm.
    monkeypatch.setattr(nonfinite, "_METRIC", learner.GRADIENT_NORM)
    crashes.train(parts, 1)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert diagnosis.Diagnosis(crash).repeats()
    crash.random_state[0] = torch.Generator().manual_seed(12).get_state()
    assert not diagnosis.Diagnosis(crash).repeats()


def test_an_overflow_of_quantiles_is_traced_to_its_trajectory(tmp_path):
    parts = crashes.parts(tmp_path, **_IQN)
    crashes.train(parts, 3)
    crashes.train(parts, 1, _huge_rewards)
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    text = diagnosis.Diagnosis(crash).culprit()
    assert text.startswith("q/targets is inf at step 2 of the trajectory of actor 1")
    assert text.endswith("whose reward is 3e+38")


def test_another_result_is_noticed(tmp_path):
    parts = crashes.parts(tmp_path)
    for one in parts.actors:
        parts.training.publish()
        one.fetch()
        one.unroll()
    crashes.spoiled_reward(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    crash.batch[3].mul_(2.0)  # the observation
    assert not diagnosis.Diagnosis(crash).repeats()


def test_parameters_that_are_bad_are_named_by_layer(tmp_path):
    parts = crashes.parts(tmp_path)
    parts.training.publish()
    for one in parts.actors:
        one.fetch()
        one.unroll()
    with torch.no_grad():
        parts.training._learner.agent.network.torso.encoder[0].weight[3, 3] = np.nan
    parts.training.step()
    crash = crash_file.load(str(crashes.files(tmp_path)[0]))
    assert (
        "the output of torso.encoder.0 is nan" in diagnosis.Diagnosis(crash).culprit()
    )


@pytest.mark.integration
def test_the_tool(tmp_path):
    parts = crashes.parts(tmp_path)
    crashes.train(parts, 1)
    for one in parts.actors:
        one.fetch()
        one.unroll()
    crashes.spoiled_reward(parts.shared.rings.ring(1).peek(0))
    parts.training.step()
    command = [sys.executable, "-m", "impala_mp.cli.diagnose"]
    done = subprocess.run(
        [*command, crashes.files(tmp_path)[0]],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Update 2 on cpu: the same again, bit for bit." in done.stdout
    assert "First: the batch's time_step/reward is nan at step 3" in done.stdout
    bad = subprocess.run(
        [*command, "nowhere"], capture_output=True, text=True, timeout=120
    )
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize(
    ("device", "count", "found"),
    [
        *(("cpu", 0, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1")),
        ("cuda:1", 1, "cuda"),
    ],
)
def test_an_update_of_a_gpu_that_is_not_there(monkeypatch, device, count, found):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert diagnosis._there(device) == found


def test_an_update_of_a_gpu_is_refused_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(errors.BadInput, match="made on cuda:1, and torch sees no CUDA"):
        diagnosis._there("cuda:1")
