"""Trainings with the base config: nothing is set but the environment and the length."""

import pytest

from impala_mp import config as config_lib
from impala_mp.evaluation import evaluate
from tests.support import builders

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_without_pictures")]


@pytest.mark.parametrize(
    ("environment", "agent_steps", "least"),
    [
        # 500 is the most; at random 22. One of nine seeds was at 158, the others above.
        pytest.param("CartPole-v1", 80_000, 100.0, marks=pytest.mark.slow),
        ("Catch", 40_000, 0.6),  # 1 is the most; at random -0.6
    ],
)
def test_the_defaults_learn(environment, agent_steps, least, tmp_path):
    config = config_lib.get_base_config()
    config.environment.id = environment
    config.total_agent_steps = agent_steps
    config.evaluation.episodes = 10
    run = tmp_path / "run"
    builders.train_in_processes(config, run)
    assert evaluate.evaluate(str(run), 10)["mean"] >= least
