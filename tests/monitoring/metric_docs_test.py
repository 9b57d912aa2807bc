"""The table of metrics has every metric of real runs, and no others."""

import pytest

from impala_mp import config as config_lib
from impala_mp.config import derived
from impala_mp.monitoring import host_records, metric_docs
from impala_mp.runtime import program
from impala_mp.storage import metrics
from impala_mp.workers import (
    action_counts,
    episode_statistics,
    evaluator,
    learner_metrics,
    member,
    policy_lag,
)

# Carried from the learner to the reporter, which makes other keys of them.
_INTERNAL = {name for name in learner_metrics.NAMES if name.startswith("restored/")}
_INTERNAL |= {*policy_lag.NAMES, *action_counts.NAMES}


def _plain(config):
    """Nothing changed."""


def _impact_with_replay(config):
    config.algorithm = "impact"
    config.loss.popart = True
    config.replay.ratio = 0.5
    config.replay.priority_exponent = 0.6
    config.replay.trust_region = 1.0


def _tasks(config):
    config.environment.id = "CartPole-v1, Acrobot-v1"
    config.loss.popart = True


def _dqn(config):
    config.algorithm = "dqn"
    config.replay.reuse = 1.0
    config.schedules.epsilon = "constant(0.1)"


def _iqn(config):
    _dqn(config)
    config.algorithm = "iqn"


def _league(config):
    config.environment.id = "Connect"
    config.network.torso = "mlp"
    config.league.every = 100


_VARIANTS = (_plain, _impact_with_replay, _tasks, _dqn, _iqn, _league)


def _config(change):
    config = config_lib.get_base_config()
    config.runtime.mode = "lockstep"
    config.actors.environments = 4
    config.batch_size = 8
    config.total_agent_steps = 4 * 8 * config.unroll_length
    config.evaluation.episodes = config.evaluation.training_episodes = 2
    config.evaluation.film = False
    config.logging.interval_secs = 1e-6
    change(config)
    return config


_PATTERNS = {
    metric.key: metric_docs.pattern(metric.key) for metric in metric_docs.METRICS
}


def _row_of(key):
    """The row of a key: its own, or the one pattern that it fits."""
    if key in _PATTERNS:
        return key
    rows = [row for row, pattern in _PATTERNS.items() if pattern.fullmatch(key)]
    rows.sort(key=lambda row: row.count("{"))  # the most exact one
    assert len({row.count("{") for row in rows}) == len(rows) > 0, f"{key}: {rows}"
    return rows[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{variant: keys of the metrics.jsonl of a lockstep run}."""
    keys = {}
    for change in _VARIANTS:
        folder = str(tmp_path_factory.mktemp(change.__name__))
        program.train(_config(change), folder)
        keys[change] = {key for record in metrics.read(folder) for key in record}
    return keys


@pytest.fixture(scope="module")
def known(written):
    """Keys of these runs, and names that other runs write."""
    keys = set().union(*written.values(), member.METRICS)
    for change in _VARIANTS:
        config = _config(change)
        keys |= set(learner_metrics.record_names(config, ("",))) - _INTERNAL
        suffixes = derived.task_suffixes(config.environment)
        numbers = episode_statistics.number_names(suffixes)
        keys -= set(numbers)
        keys |= set(
            episode_statistics.with_names(dict.fromkeys(numbers, 0.0), ["score"])
        )
        keys |= set(evaluator.record_names(derived.task_suffixes(config.environment)))
    keys |= {*learner_metrics.OF_RANKS, "health/rank_mismatches"}
    return keys | set(host_records.METRICS)


@pytest.mark.integration
@pytest.mark.parametrize("change", _VARIANTS)
def test_every_metric_of_a_run_has_its_row(change, written):
    assert len(written[change]) > 50
    for key in written[change]:
        _row_of(key)


@pytest.mark.integration
def test_every_metric_that_the_code_names_has_its_row(known):
    for key in known:
        _row_of(key)


@pytest.mark.integration
def test_the_code_knows_every_row(known):
    unknown = set(_PATTERNS) - {_row_of(key) for key in known}
    assert not unknown


def test_every_row_is_complete_and_there_once():
    assert len(_PATTERNS) == len(metric_docs.METRICS)
    for metric in metric_docs.METRICS:
        assert metric.unit, metric.key
        for sentence in filter(None, (metric.meaning, metric.healthy)):
            assert sentence.endswith("."), metric.key
