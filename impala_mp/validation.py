"""What makes a configuration valid: ranges, choices, and what goes together."""

import math
from collections.abc import Callable
from typing import Any

from impala_mp import (
    algorithm_settings,
    config as config_lib,
    core_settings,
    errors,
    hyperparameters,
    replay_settings,
    tasks,
)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise errors.BadInput(sentence)


def _one_of(config: Any, field: str, choices: tuple[str, ...]) -> None:
    value = config_lib.get(config, field)
    _require(
        value in choices,
        f"{field} ({value!r}) must be one of {', '.join(choices)}: set config.{field}.",
    )


_AT_LEAST_ONE = (
    "total_agent_steps unroll_length batch_size actors.slots"
    " actors.threads inference.threads network.core_size evaluation.episodes"
    " evaluation.environments checkpoint.keep_last health.max_skipped_updates"
    " learner.passes target.period impact.ratio_threshold evaluation.max_steps"
    " network.gtrxl.layers network.gtrxl.heads network.gtrxl.window"
)
_AT_LEAST_ZERO = (
    "seed actors.count actors.policy_delay actors.environments learner.threads"
    " learner.micro_batches loss.baseline_cost actors.epsilon_ladder"
    " optimizer.learning_rate optimizer.clip_norm evaluation.interval_secs"
    " checkpoint.interval_secs checkpoint.keep_every health.max_restarts.actor"
    " health.max_restarts.learner health.max_restarts.inference"
    " health.max_restarts.evaluator"
    " health.max_failed_starts health.drift_interval"
    " health.min_actors health.max_crash_files"
    " impact.kl_cost replay.priority_exponent replay.clear_policy_cost"
    " replay.clear_value_cost replay.trust_region"
)
_POSITIVE = (
    "health.start_secs health.reset_secs health.slow_secs health.hang_secs"
    " health.backoff_secs health.max_backoff_secs"
    " health.window_secs logging.interval_secs shutdown.deadline_secs"
    " optimizer.epsilon loss.huber_delta loss.popart_beta impact.clip_range"
    " replay.memory_mib network.initial_std"
)
_UNIT = (
    "vtrace.lambda_ loss.discount_factor optimizer.decay optimizer.momentum"
    " loss.popart_beta impact.clip_range target.polyak replay.priority_eta"
    " replay.importance_exponent"
)
_FINITE = (
    "replay.memory_mib replay.priority_exponent replay.clear_policy_cost"
    " replay.clear_value_cost impact.kl_cost loss.baseline_cost loss.huber_delta"
    " optimizer.learning_rate optimizer.epsilon actors.epsilon_ladder"
    " network.initial_std"
)
_BELOW_A_MILLION = (  # seconds that are waited for; for others, infinity means never
    "evaluation.interval_secs health.backoff_secs health.max_backoff_secs"
    " logging.interval_secs shutdown.deadline_secs network.core_size"
)
# Beginnings of fields, what they need to have an effect, and whether that holds.
_NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (("replay.",), "replay.ratio above 0", lambda c: c.replay.ratio > 0),
    (("replay.burn_in",), "a network.core", lambda c: c.network.core != "none"),
    (
        ("replay.importance_exponent",),
        "replay.priority_exponent above 0",
        lambda c: c.replay.priority_exponent > 0,
    ),
    (
        ("replay.priority_eta",),
        "replay.priority_exponent above 0 or replay.eviction=priority",
        lambda c: c.replay.priority_exponent > 0 or c.replay.eviction == "priority",
    ),
    (("impact.", "target."), "algorithm=impact", lambda c: c.algorithm == "impact"),
    (
        ("loss.huber_delta",),
        "loss.baseline=huber",
        lambda c: c.loss.baseline == "huber",
    ),
    (("loss.popart_beta",), "loss.popart=True", lambda c: c.loss.popart),
)


def _check_effects(config: Any) -> None:
    """Refuses values that would be ignored: who gave them expects something of them."""
    changed = config_lib.differences(config_lib.get_base_config(), config)
    for beginnings, needed, holds in _NEEDS:
        for field in changed:
            default, value = changed[field]
            _require(
                not field.startswith(beginnings) or holds(config),
                f"{field} ({value!r}) has no effect without {needed}: set that, or"
                f" leave config.{field} at {default!r}.",
            )


def _check_ranges(config: Any) -> None:
    rules = (
        (_AT_LEAST_ONE, "at least 1", lambda x: x >= 1),
        (_AT_LEAST_ZERO, "at least 0", lambda x: x >= 0),
        (_POSITIVE, "above 0", lambda x: x > 0),
        (_UNIT, "between 0 and 1", lambda x: 0 <= x <= 1),
        (_BELOW_A_MILLION, "at most 1,000,000", lambda x: x <= 1_000_000),
        (_FINITE, "finite", math.isfinite),
    )
    for fields, words, holds in rules:
        for field in fields.split():
            value = config_lib.get(config, field)
            _require(
                isinstance(value, (int, float)) and holds(value),
                f"{field} ({value!r}) must be {words}: set config.{field}.",
            )


def _check_sizes(config: Any, field: str) -> None:
    value = config_lib.get(config, field)
    _require(
        all(isinstance(size, int) and 1 <= size <= 1_000_000 for size in value),
        f"{field} ({value!r}) must be whole numbers from 1 to 1,000,000: set"
        f" config.{field}, as in config.{field}=(64,64).",
    )


def validate(config: Any, num_cores: int) -> None:
    """Refuses a config that cannot run, before anything is started.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    _check_ranges(config)
    hyperparameters.validate(config)
    _one_of(config, "algorithm", algorithm_settings.ALGORITHMS)
    core_settings.check(config.network)
    _check_sizes(config, "network.hidden_sizes")
    _one_of(config, "loss.reduction", algorithm_settings.REDUCTIONS)
    _one_of(config, "loss.reward_clipping", algorithm_settings.REWARD_CLIPPINGS)
    _one_of(config, "loss.baseline", algorithm_settings.BASELINES)
    algorithm_settings.check(config)
    optimizers = ("adam", "rmsprop_tensorflow", "rmsprop_torch")
    _one_of(config, "optimizer.name", optimizers)
    _one_of(config, "optimizer.schedule", ("linear", "constant"))
    _one_of(config, "inference.mode", ("actor", "server"))
    if config.inference.mode == "server":
        _check_server(config)
    _one_of(config, "learner.precision", ("float32", "bfloat16"))
    _require(
        not config.learner.cuda_graph or config.learner.device.startswith("cuda"),
        f"learner.cuda_graph needs a GPU, and learner.device is"
        f" {config.learner.device!r}: set config.learner.cuda_graph=False, or"
        " config.learner.device=cuda.",
    )
    _require(
        config.learner.micro_batches > 0 or config.learner.device == "cpu",
        f"learner.micro_batches=auto is measured on a CPU only, and learner.device is"
        f" {config.learner.device!r}: set config.learner.micro_batches to a number; the"
        " smallest for which a batch fits is the fastest.",
    )
    _one_of(config, "runtime.mode", ("processes", "lockstep"))
    _require(
        config.runtime.mode == "processes" or not config.evaluation.interval_secs,
        f"evaluation.interval_secs ({config.evaluation.interval_secs}) needs processes,"
        " and runtime.mode is lockstep: set config.evaluation.interval_secs=0.",
    )
    _require(
        config.max_policy_lag >= -1,
        f"max_policy_lag ({config.max_policy_lag}) must be at least 0, or -1 for no"
        " limit: set config.max_policy_lag.",
    )
    _require(
        config.max_policy_lag < 0 or not config.actors.policy_delay,
        f"actors.policy_delay ({config.actors.policy_delay}) makes the policy lag that"
        f" max_policy_lag ({config.max_policy_lag}) forbids: set one of them only.",
    )
    count, num_tasks = config.actors.count, len(tasks.names(config.environment))
    _require(
        count == 0 or count >= num_tasks,
        f"actors.count ({count}) must be at least {num_tasks}, one a task of"
        f" environment.id ({config.environment.id!r}): set config.actors.count.",
    )
    replay_settings.check(config)
    _check_effects(config)
    replay_settings.check_batch(config, config_lib.num_actors(config, num_cores))


def _check_server(config: Any) -> None:
    _require(
        config.runtime.mode == "processes",
        "inference.mode=server needs processes, and runtime.mode is lockstep: set"
        " config.inference.mode=actor.",
    )
    envs = config.actors.environments
    _require(
        envs % 2 == 0,
        f"actors.environments ({envs}) must be even with inference.mode=server, which"
        f" steps two halves in turn: set config.actors.environments to {envs + 1}.",
    )
