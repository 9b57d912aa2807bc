"""Tic-tac-toe, whose players learn by V-trace and by DQN; an experiment, too."""

from impala_mp import config as config_lib

DQN = {
    "algorithm": "dqn",
    "vtrace": {"lambda_": 0.95},
    "target": {"period": 3},
    "replay": {"reuse": 1.0, "start": 8, "memory_mib": 4.0, "save": True},
}


def get_config(variant="lockstep"):
    config = config_lib.get_impala_config()
    config.runtime.mode = variant
    config.environment.id = "Connect"
    config.environment.sharing = "each"
    config.policies.player_1 = DQN
    config.actors.environments = 8
    config.actors.count = 3 if variant == "lockstep" else 2
    config.batch_size = 16
    config.unroll_length = 7
    config.total_agent_steps = 40 * 7 * 8
    config.optimizer.schedule = "constant"
    config.evaluation.episodes = config.evaluation.training_episodes = 5
    config.evaluation.film = False
    config.evaluation.greedy = True
    config.learner.threads = 1
    config.checkpoint.interval_secs = 0.3
    return config
