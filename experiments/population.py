"""CartPole-v1 by four members of a population, with learning rates of 1e-5 to 1e-1.

The worst member copies the best, every 20,000 of its steps. The best member reaches the
maximum of 500. The variant alone is one run at the lowest of the learning rates, which
learns next to nothing in as many steps.
"""

from impala_mp import config as config_lib

_LOWEST, _HIGHEST = 1e-5, 1e-1  # learning rates
_SIZE = 4
_STEPS = 200_000  # of a member


def get_config(variant="population"):
    config_lib.one_of(variant, ("population", "alone"))
    config = config_lib.get_impala_config()
    config.environment.id = "CartPole-v1"
    config.total_agent_steps = _STEPS
    config.network.hidden_sizes = (64, 64)
    config.actors.environments = 8
    config.batch_size = 16
    config.loss.reduction = "mean"
    config.loss.baseline_cost = 0.02  # values reach 100; their errors drown the policy
    config.optimizer.clip_norm = 0.0
    config.optimizer.schedule = "constant"
    config.evaluation.greedy = True
    config.optimizer.learning_rate = _LOWEST
    if variant == "population":
        config.total_agent_steps = _SIZE * _STEPS
        config.actors.count = _SIZE
        config.population.size = _SIZE
        config.population.interval = 20_000
        config.population.ranges.learning_rate_factor = (1.0, _HIGHEST / _LOWEST)
    return config
