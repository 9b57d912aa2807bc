"""What makes a configuration valid: ranges, choices, and what goes together."""

import math
from collections.abc import Callable
from typing import Any

from impala_mp import errors
from impala_mp.config import base, derived, fields as fields_lib, live_hyperparameters


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise errors.BadInput(sentence)


def _one_of(config: Any, field: str, choices: tuple[str, ...]) -> None:
    value = fields_lib.get(config, field)
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
    changed = fields_lib.differences(base.get_base_config(), config)
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
            value = fields_lib.get(config, field)
            _require(
                isinstance(value, (int, float)) and holds(value),
                f"{field} ({value!r}) must be {words}: set config.{field}.",
            )


def _check_sizes(config: Any, field: str) -> None:
    value = fields_lib.get(config, field)
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
    live_hyperparameters.validate(config)
    _one_of(config, "algorithm", ALGORITHMS)
    check_core(config.network)
    _check_sizes(config, "network.hidden_sizes")
    _one_of(config, "loss.reduction", REDUCTIONS)
    _one_of(config, "loss.reward_clipping", REWARD_CLIPPINGS)
    _one_of(config, "loss.baseline", BASELINES)
    _check_algorithm(config)
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
    count, num_tasks = config.actors.count, len(derived.task_names(config.environment))
    _require(
        count == 0 or count >= num_tasks,
        f"actors.count ({count}) must be at least {num_tasks}, one a task of"
        f" environment.id ({config.environment.id!r}): set config.actors.count.",
    )
    _check_replay(config)
    _check_effects(config)
    _check_batch(config, derived.num_actors(config, num_cores))


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


def _check_replay(config: Any) -> None:
    """Refuses what is unsound.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    settings = config.replay
    _require(
        0.0 <= settings.ratio < 1.0,
        f"replay.ratio ({settings.ratio!r}) must be at least 0 and below 1, for a"
        " batch needs fresh trajectories: set config.replay.ratio.",
    )
    _require(
        settings.eviction in EVICTIONS,
        f"replay.eviction ({settings.eviction!r}) must be one of"
        f" {', '.join(EVICTIONS)}: set config.replay.eviction.",
    )
    _require(
        0 <= settings.burn_in < config.unroll_length,
        f"replay.burn_in ({settings.burn_in}) must be at least 0 and below"
        f" unroll_length ({config.unroll_length}): set config.replay.burn_in.",
    )
    if settings.ratio:
        _check_shares(config)
        _require(
            config.network.core == "none" or settings.burn_in >= 1,
            f"network.core={config.network.core} with replay.burn_in"
            f" ({settings.burn_in}) would learn from recurrent states that older"
            " parameters left: set config.replay.burn_in to at least 1 (say, a quarter"
            f" of unroll_length, {config.unroll_length}).",
        )


def _check_batch(config: Any, num_actors: int) -> None:
    """Refuses a batch that the actors' slots cannot fill, or that cannot be cut.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    size, envs = config.batch_size, config.actors.environments
    parts = config.learner.micro_batches
    _require(
        not parts or size % parts == 0,
        f"learner.micro_batches ({parts}) must divide batch_size ({size}): set"
        f" config.learner.micro_batches to a divisor of {size}.",
    )
    if not envs:
        return  # to be chosen, and checked then
    fresh = derived.num_fresh(config)
    _require(
        fresh % envs == 0,
        f"batch_size ({size}) must be a multiple of actors.environments ({envs}): set"
        f" config.batch_size to {-(-size // envs) * envs}.",
    )
    count, slots = num_actors, config.actors.slots
    _require(
        count * slots * envs >= fresh,
        f"batch_size ({size}) needs {fresh // envs} slots, but {count} actors with"
        f" {slots} slots each have {count * slots}, and learner and actors would wait"
        f" for each other for ever: set config.actors.slots to"
        f" {-(-fresh // (envs * count))}.",
    )
    _require(
        count <= 200,
        f"actors.count ({count}) must be at most 200 on one machine: raise"
        " config.actors.environments instead.",
    )


def _check_algorithm(config: Any) -> None:
    """Refuses what would run and be wrong.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    popart, polyak = config.loss.popart, config.target.polyak
    clipping = config.loss.reward_clipping
    if popart and clipping == "abs_one":
        raise errors.BadInput(
            f"loss.popart finds the scale of rewards, and loss.reward_clipping"
            f" ({clipping!r}) takes it away before, which makes it pointless: set"
            " config.loss.reward_clipping=none, or config.loss.popart=False."
        )
    if polyak == 1:
        raise errors.BadInput(
            f"target.polyak ({polyak}) must be below 1, or the target network never"
            " moves: set config.target.polyak."
        )
    if config.algorithm == "impact" and popart and polyak:
        raise errors.BadInput(
            f"target.polyak ({polyak}) would average weights that loss.popart has"
            " scaled differently, which is no average of values: set"
            " config.target.polyak=0, or config.loss.popart=False."
        )


def check_core(network: Any) -> None:
    """Refuses a core, in `config.network`, that cannot be made.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    name, size, heads = network.core, network.core_size, network.gtrxl.heads
    if name not in CORES and ":" not in name:
        raise errors.BadInput(
            f"network.core ({name!r}) must be one of {', '.join(CORES)}, or"
            " module:factory: set config.network.core."
        )
    if name == "gtrxl" and size % heads:
        raise errors.BadInput(
            f"network.core_size ({size}) must be a multiple of network.gtrxl.heads"
            f" ({heads}): set config.network.core_size to {-(-size // heads) * heads}."
        )


ALGORITHMS = ("vtrace", "impact")
REWARD_CLIPPINGS = ("none", "abs_one", "soft_asymmetric")
REDUCTIONS = ("sum", "mean")
BASELINES = ("squared", "huber")


CORES = ("none", "lstm", "gru", "gtrxl")


EVICTIONS = ("fifo", "priority")


def _check_shares(config: Any) -> None:
    size, ratio = config.batch_size, config.replay.ratio
    envs = config.actors.environments or 1  # 0: to be chosen so that it divides
    if (
        derived.num_replayed(config)
        and derived.num_fresh(config)
        and not derived.num_fresh(config) % envs
    ):
        return
    ratios = [(size - fresh) / size for fresh in range(envs, size, envs)]
    cure = f"config.batch_size to at least {2 * envs}"
    if ratios:
        nearest = min(ratios, key=lambda other: abs(other - ratio))
        cure = f"config.replay.ratio to {nearest:.6g}"
    raise errors.BadInput(
        f"replay.ratio ({ratio}) makes {derived.num_fresh(config)} fresh and"
        f" {derived.num_replayed(config)} replayed trajectories of batch_size ({size});"
        f" the fresh ones must be a multiple of actors.environments ({envs}), and of"
        f" both there must be some: set {cure}."
    )
