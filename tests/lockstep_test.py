"""One process, deterministic: the same seed, the same run, stopped or not."""

import pytest
import torch

from impala_mp import checkpoint, config as config_lib, program


def _config(**overrides):
    config = config_lib.get_base_config()
    config.runtime.mode = "lockstep"
    config.environment.id = "Catch"
    config.actors.environments = 4
    config.actors.count = 3
    config.batch_size = 8
    config.unroll_length = 7
    config.total_agent_steps = 40 * 7 * 8
    config.evaluation.episodes = 5
    config.learner.threads = 1
    config.update_from_flattened_dict(overrides)
    return config


def _train(path, **overrides):
    program.train(_config(**overrides), str(path))
    return checkpoint.load_newest(str(path / "checkpoints"), print)


def _assert_same(a, b, where="state"):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


_LEARNED = ("learner", "actors", "next_actor", "episodes")

_VARIANTS = {
    "mlp": {},
    "lstm": {
        "environment.id": "Recall",
        "network.core": "lstm",
        "network.core_size": 8,
        "network.last_action": True,
        "network.last_reward": True,
    },
    "cartpole": {"environment.id": "CartPole-v1"},
    "delayed": {"actors.policy_delay": 5},
    "impact": {
        "algorithm": "impact",
        "target.period": 3,
        "learner.passes": 2,
        "learner.micro_batches": 2,
        "impact.kl_cost": 0.1,
    },
    "polyak": {"algorithm": "impact", "target.period": 2, "target.polyak": 0.5},
    "popart": {"loss.popart": True, "loss.popart_beta": 0.1, "loss.baseline": "huber"},
}


@pytest.mark.parametrize("name", _VARIANTS)
def test_the_same_seed_gives_the_same_run(tmp_path, name):
    first = _train(tmp_path / "a", **_VARIANTS[name])
    second = _train(tmp_path / "b", **_VARIANTS[name])
    other = _train(tmp_path / "c", seed=1, **_VARIANTS[name])
    for key in _LEARNED:
        _assert_same(first[key], second[key], key)
    with pytest.raises(AssertionError):
        _assert_same(first["learner"], other["learner"])


@pytest.mark.parametrize("name", _VARIANTS)
def test_stopping_and_going_on_equals_never_having_stopped(tmp_path, name):
    # A constant learning rate: extending a run stretches a linear schedule.
    same = {"optimizer.schedule": "constant", **_VARIANTS[name]}
    whole = _train(tmp_path / "whole", **same)
    for updates in (13, 14, 40):
        steps = updates * 7 * 8
        parts = _train(tmp_path / "parts", total_agent_steps=steps, **same)
        assert parts["learner"]["updates"] == updates
    for key in _LEARNED:
        _assert_same(whole[key], parts[key], key)


def test_a_training_in_which_no_episode_ends_has_no_curve(tmp_path, capsys):
    config = _config(**{"environment.id": "Recall", "total_agent_steps": 7 * 8})
    config.environment.kwargs.delay = 50
    program.train(config, str(tmp_path))
    said = capsys.readouterr().out
    assert "Final evaluation: mean return" in said
    assert "none, because no episode has ended in training" in said
    assert not (tmp_path / "learning_curve.png").exists()
