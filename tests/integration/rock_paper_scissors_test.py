"""Why a league: against the newest snapshot alone a policy runs in circles."""

import itertools

import numpy as np
import pytest

from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.storage import snapshot_file
from impala_mp.workers import builders as worker_builders
from tests.support import builders, rock_paper_scissors

pytestmark = pytest.mark.integration


def _train(folder, draw):
    """Chances of rock, paper and scissors of each snapshot, [N, 3]."""
    config = builders.config(
        **{
            "environment.id": f"{rock_paper_scissors.__name__}:RockPaperScissors",
            "runtime.mode": "lockstep",
            "network.torso": "mlp",
            "network.hidden_sizes": (4,),
            "actors.count": 1,
            "actors.environments": 64,
            "batch_size": 64,
            "unroll_length": 2,
            "total_agent_steps": 250 * 64 * 2,
            "league.every": 8 * 64 * 2,
            "league.size": 100,
            "league.share": 1.0,
            "league.draw": draw,
            "loss.entropy_cost": 0.3,
            "loss.reduction": "mean",
            "optimizer.learning_rate": 0.03,
            "optimizer.schedule": "constant",
            "optimizer.clip_norm": 0.0,
            "logging.episodes": False,
        }
    )
    made = builders.shared(config, folder / "checkpoints")
    loop = worker_builders.make_learner(made.topology.learner(), made)
    loop.restore(print)
    one = worker_builders.make_actor(made.topology.actors[0], 0, [made])
    while not loop.finished:
        one.fetch()
        one.guarded_unroll()
        loop.turn()
    one.close()
    policy = agent.make(config, factory.probe(config.environment))
    league = str(folder / "league")
    states = [snapshot_file.read(league, n) for n in snapshot_file.versions(league)]
    return np.array([rock_paper_scissors.chances(x, policy) for x in states])


@pytest.mark.slow
def test_the_newest_alone_cycles_and_a_uniform_league_settles(tmp_path):
    latest = _train(tmp_path / "latest", "latest")
    uniform = _train(tmp_path / "uniform", "uniform")
    assert len(latest) == len(uniform) > 25
    # Each best answer is answered: rock, paper, scissors, and rock again.
    order = [best for best, _ in itertools.groupby(latest.argmax(1).tolist())]
    turns = [(b - a) % 3 for a, b in itertools.pairwise(order)]
    assert turns[-5:] == [1] * 5, order
    settled = slice(len(latest) // 2, None)
    assert latest[settled].max(1).mean() > 0.7
    assert np.abs(uniform.mean(0) - 1.0 / 3.0).max() < 0.1
    assert np.abs(uniform[settled].mean(0) - 1.0 / 3.0).max() < 0.1
    assert uniform[settled].max(1).mean() < 0.6
