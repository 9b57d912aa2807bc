"""Short trainings in lockstep, and the comparison of their states."""

import torch

from impala_mp import config as config_lib
from impala_mp.runtime import program
from impala_mp.storage import checkpoint


def config(**overrides):
    config = config_lib.get_impala_config()
    config.runtime.mode = "lockstep"
    config.environment.id = "Catch"
    config.actors.environments = 4
    config.actors.count = 3
    config.batch_size = 8
    config.unroll_length = 7
    config.total_agent_steps = 40 * 7 * 8
    config.evaluation.episodes = config.evaluation.training_episodes = 5
    config.evaluation.film = False
    config.learner.threads = 1
    config.update_from_flattened_dict(overrides)
    return config


def train(path, **overrides):
    program.train(config(**overrides), str(path))
    return checkpoint.load_newest(str(path / "checkpoints"), print)


def assert_same(a, b, where="state"):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


LEARNED = ("learner", "actors", "next_actor", "episodes")

_BY_VALUE = {
    "evaluation.greedy": True,
    "vtrace.lambda_": 0.95,
    "target.period": 3,
    "actors.epsilon": 0.2,
    "replay.reuse": 1.0,
    "replay.start": 8,
    "replay.memory_mib": 0.2,
    "replay.priority_exponent": 0.6,
    "replay.importance_exponent": 1.0,  # below 1 it depends on the length of a run
    "replay.save": True,
}
VARIANTS = {
    "mlp": {},
    "lstm": {
        "environment.id": "Recall",
        "network.core": "lstm",
        "network.core_size": 8,
        "network.last_action": True,
        "network.last_reward": True,
    },
    "cartpole": {"environment.id": "CartPole-v1"},
    "globals": {"environment.id": "tests.support.counting:Gambler-v0"},
    "delayed": {"actors.policy_delay": 5},
    "impact": {
        "algorithm": "impact",
        "target.period": 3,
        "learner.passes": 2,
        "learner.micro_batches": 2,
        "impact.kl_cost": 0.1,
    },
    "polyak": {"algorithm": "impact", "target.period": 2, "target.polyak": 0.5},
    "dqn": {"algorithm": "dqn", **_BY_VALUE},
    "iqn": {"algorithm": "iqn", **_BY_VALUE},
    "game": {
        "environment.id": "Connect",
        "network.core": "lstm",
        "network.core_size": 8,
        "network.last_action": True,
        "network.last_reward": True,
    },
    "league": {
        "environment.id": "Connect",
        "network.torso": "mlp",
        "network.hidden_sizes": (8,),
        "network.core": "lstm",
        "network.core_size": 8,
        "network.last_action": True,
        "actors.environments": 4,
        "actors.epsilon": 0.2,
        "league.every": 400,
        "league.size": 3,
    },
    "popart": {"loss.popart": True, "loss.popart_beta": 0.1, "loss.baseline": "huber"},
}
