"""Chooses actors, learner threads and micro-batches by a short measurement."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from impala_mp import errors, nest, specs
from impala_mp.algorithms import base as algorithm_base, replay_correction
from impala_mp.config import base, derived, fields, minibatches, validation
from impala_mp.environments import factory
from impala_mp.networks import agent, precision
from impala_mp.runtime import resources
from impala_mp.workers import learner

_SECS = 0.5  # of each measurement
_MAX_ENVIRONMENTS = 256  # of one actor
_ENVIRONMENTS = 32  # where their number is chosen later
_SIZES = 6  # number of environment counts to try, the largest ones
# The time of an update does not depend on these.
_LIVE = algorithm_base.Live(0.01, 1.0, 1.0, 1.0, 1.0)
_LEAST_GAIN = 1.1  # of bfloat16, which has fewer digits
_MICRO_BATCHES = (1, 2, 4, 8, 16)
_MAX_FRESH = 64  # trajectories of an automatic batch


class Costs(NamedTuple):
    """Core-seconds per agent step."""

    environment: float
    inference: float
    learning: float


def fill_in(
    config: Any,
    environment: specs.EnvironmentSpec,
    policy: agent.Agent,
    num_cores: int,
    stored: Any = None,
) -> list[str]:
    """Replaces automatic devices and numbers of `config`; returns sentences.

    Raises:
      BadInput: what was chosen does not go with other fields.
    """
    count = sum(each.numel() for each in policy.network.parameters())
    devices = resources.choose_devices(config, count)
    if devices:
        validation.check_relations(config, num_cores)
    games = _round_to_games(config, len(environment.players))
    precisions = choose_precisions(config, environment, stored)
    numbers = resolve(config, environment, num_cores, stored)
    if games or numbers or config.learner.device != "cpu":
        validation.check_relations(config, num_cores)
    return [*devices, games, *precisions, numbers]


def fill_in_several(
    config: Any, num_players: int, num_cores: int, stored: Any = None
) -> list[str]:
    """Replaces automatic numbers of a run of several policies; returns sentences.

    They are not measured: an actor a core, and an unroll of each environment a batch.

    Raises:
      BadInput: what was chosen does not go with other fields.
    """
    sentences = [_round_to_games(config, num_players)]
    for group in ("learner", "inference"):
        if config[group].precision == precision.AUTO:
            config[group].precision = precision.FLOAT32
            sentences.append(
                f"{group}.precision = float32 (auto): with several policies it is not"
                " measured."
            )
    automatic = [f for f in base.AUTOMATIC if fields.get(config, f) == 0]
    _keep_sizes(config, automatic, stored)
    step = _step(config, num_players)
    envs = -(-_ENVIRONMENTS // step) * step
    config.actors.environments = config.actors.environments or envs
    config.learner.micro_batches = config.learner.micro_batches or 1
    if not config.batch_size:
        _set_fresh(config, config.actors.environments)
    alone = config.runtime.mode == "lockstep"
    size = config.population.size or 1  # members, each with its own actors
    cores = 1 if alone else min(num_cores, derived.MAX_ACTORS)
    count = size * _enough_slots(config, max(1, cores // size))
    config.actors.count = config.actors.count or count
    _set_batch(config, automatic, stored)
    if automatic:
        sentences.append(_sentence(config, automatic, " for several policies"))
    validation.check_relations(config, num_cores)
    return sentences


def choose_precisions(
    config: Any, environment: specs.EnvironmentSpec, stored: Any = None
) -> list[str]:
    """Replaces automatic precisions of `config`; returns a sentence for each.

    A resumed run keeps its own. On a GPU it is float32: the deep network was not faster
    in bfloat16 on an H200 (docs/results/performance.md).
    """
    devices = {
        "learner": config.learner.device,
        "inference": derived.acting_device(config.inference),
    }
    sentences = []
    for group, device in devices.items():
        if config[group].precision == precision.AUTO:
            if stored:
                chosen = fields.get(stored, f"{group}.precision")
                why = "the run began with it"
            elif device != "cpu":
                chosen, why = precision.FLOAT32, "it is on a GPU"
            elif not precision.is_native():
                chosen, why = precision.FLOAT32, "this CPU lacks bfloat16"
            else:
                chosen, why = _faster_precision(config, environment, group)
            config[group].precision = chosen
            sentences.append(f"{group}.precision = {chosen} (auto): {why}.")
    return sentences


def _faster_precision(
    config: Any, environment: specs.EnvironmentSpec, group: str
) -> tuple[str, str]:
    """Measures an update, or an acting step, on one core at each precision.

    Returns:
      The precision and the reason.
    """
    torch.set_num_threads(1)
    tried, least = copy.deepcopy(config), _step(config, len(environment.players))
    tried.actors.environments = config.actors.environments or max(least, _ENVIRONMENTS)
    if not tried.batch_size:
        _set_fresh(tried, tried.actors.environments)
    tried.learner.micro_batches = config.learner.micro_batches or 1
    for each in ("learner", "inference"):
        tried[each].precision = precision.FLOAT32
    what, measured = {
        "learner": ("an update", _update_secs),
        "inference": ("an acting step", _inference_secs),
    }[group]
    secs = {}
    for name in (precision.FLOAT32, precision.BFLOAT16):
        tried[group].precision = name
        secs[name] = measured(tried, environment)
    each = " and ".join(f"{1e3 * s:.3g} ms in {name}" for name, s in secs.items())
    faster = _LEAST_GAIN * secs[precision.BFLOAT16] <= secs[precision.FLOAT32]
    chosen = precision.BFLOAT16 if faster else precision.FLOAT32
    return chosen, f"{what} takes {each}"


def _step(config: Any, num_players: int) -> int:
    """Returns what the number of environments of an actor must be a multiple of.

    Each player of a game counts. An actor of a server steps two halves.
    """
    return num_players * (2 if config.inference.mode == "server" else 1)


def _round_to_games(config: Any, num_players: int) -> str:
    """Rounds the environments of an actor up to whole games; returns a sentence."""
    envs, step = config.actors.environments, _step(config, num_players)
    if envs % step == 0:
        return ""
    rounded = -(-envs // step) * step
    if config.batch_size and derived.num_fresh(config) % rounded:
        raise errors.BadInput(
            f"actors.environments ({envs}) must be a multiple of {step}, because each"
            f" of the {num_players} players of a game counts. Set"
            f" config.actors.environments to {rounded}, and config.batch_size to a"
            " multiple of it."
        )
    config.actors.environments = rounded
    return (
        f"actors.environments = {config.actors.environments} instead of {envs}: each of"
        f" the {num_players} players of a game counts."
    )


def resolve(
    config: Any, environment: specs.EnvironmentSpec, num_cores: int, stored: Any = None
) -> str:
    """Replaces automatic fields of `config` by numbers; returns a sentence or "".

    A batch is an unroll of each environment, so that more actors do not make the data
    older. Above 64 trajectories it would make too few updates. A resumed run keeps what
    changes the learning, its batch size and number of environments (`stored`).

    The main process never touches CUDA. With a learner on a GPU, actors get every core
    but one. A lockstep run gets the fewest actors that fill a batch. To repeat it
    exactly, set the number of micro-batches found here, because timings differ. An
    inference server always has its cores, and relieves the actors of inference.
    """
    automatic = [f for f in base.AUTOMATIC if fields.get(config, f) == 0]
    if not automatic:
        return ""
    torch.set_num_threads(1)
    serving = derived.server_threads(config.inference)
    left = max(1, num_cores - serving)  # for actors and learner
    _keep_sizes(config, automatic, stored)
    if config.batch_size == 0:
        step = _step(config, len(environment.players))
        most = max(step, _MAX_FRESH // step * step)
        _set_fresh(config, config.actors.environments or most)
    if config.actors.environments == 0:
        config.actors.environments = _cheapest_size(config, environment)
    if config.learner.micro_batches == 0:
        config.learner.micro_batches = _fastest_cut(config, environment)
    alone = config.runtime.mode == "lockstep"
    if alone or config.learner.device != "cpu" or config.actors.count:
        config.actors.count = config.actors.count or _enough_slots(
            config, 1 if alone else max(1, left - 1)
        )
        _set_batch(config, automatic, stored)
        measured = {*automatic} - {"actors.count", "batch_size"}
        return _sentence(config, automatic, " by calibration" if measured else "")
    costs = measure(config, environment)
    if config.actors.count == 0:
        acting = costs._replace(inference=0.0) if serving else costs
        count, threads = choose(acting, left)
        config.actors.count = _enough_slots(config, count)
        config.learner.threads = config.learner.threads or threads
    _set_batch(config, automatic, stored)
    why = (
        " by calibration: an agent step takes"
        f" {1e6 * costs.environment:.3g} µs of environment,"
        f" {1e6 * costs.inference:.3g} of inference and {1e6 * costs.learning:.3g} of"
        f" learning, and there are {num_cores} cores"
    )
    if serving:
        why += f", {serving} of them for the inference server"
    return _sentence(config, automatic, why)


def _keep_sizes(config: Any, automatic: list[str], stored: Any) -> None:
    """Takes automatic sizes from the `stored` config of a resumed run, if any."""
    if stored:
        for field in ("actors.environments", "batch_size"):
            if field in automatic:
                config.update_from_flattened_dict({field: fields.get(stored, field)})


def _set_batch(config: Any, automatic: list[str], stored: Any) -> None:
    """Makes an automatic batch an unroll of each environment, within the limit."""
    if "batch_size" in automatic and not stored:
        envs = config.actors.environments
        count = config.actors.count // (config.population.size or 1)
        _set_fresh(config, envs * max(1, min(count, _MAX_FRESH // envs)))


def _set_fresh(config: Any, fresh: int) -> None:
    """Sets the size of a batch with `fresh` trajectories beside those of the replay."""
    config.batch_size = round(fresh / (1.0 - config.replay.ratio))


def _sentence(config: Any, automatic: list[str], why: str) -> str:
    chosen = ", ".join(f"{f} = {fields.get(config, f)}" for f in automatic)
    return f"Chosen{why}: {chosen}."


def choose(costs: Costs, num_cores: int) -> tuple[int, int]:
    """Returns (actors, learner threads) that leave no core idle.

    Each side gets its share of the cores, rounded up. A thread too many waits for its
    ring; a thread too few leaves a core idle.
    """
    acting = costs.environment + costs.inference
    share = acting / (acting + costs.learning)
    actors = max(1, math.ceil(num_cores * share - 0.1))
    threads = max(1, math.ceil(num_cores * (1.0 - share) - 0.1))
    if actors + threads > num_cores:
        # They share cores: one more actor uses the core of a waiting learner.
        actors = min(num_cores, actors + 1)
    return actors, threads


def _enough_slots(config: Any, count: int) -> int:
    """Returns `count`, or more if a batch or the tasks require more actors.

    A machine with more cores has no more than `derived.MAX_ACTORS`.
    """
    count = min(count, derived.MAX_ACTORS)
    trajectories = config.actors.slots * config.actors.environments
    fresh = derived.num_fresh(config)
    num_tasks = len(derived.task_names(config.environment))
    return max(count, num_tasks, math.ceil(fresh / trajectories))


def measure(config: Any, environment: specs.EnvironmentSpec) -> Costs:
    """Measures each cost on one core, without contention."""
    count = config.actors.environments
    return Costs(
        _environment_secs(config.environment, count) / count,
        _inference_secs(config, environment) / count,
        _update_secs(config, environment)
        / (derived.num_new(config) * config.unroll_length),
    )


def _seconds_a_call(function: Callable[[], Any]) -> float:
    function()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < _SECS:
        function()
        count += 1
    return (time.perf_counter() - start) / count


def _environment_secs(settings: Any, count: int) -> float:
    made = factory.make(settings, count)
    with contextlib.closing(made):
        row = made.reset(list(range(made.num_envs)))
        actions = specs.example_actions(made.spec.action, made.num_envs)
        mask = made.spec.action_mask

        def step() -> None:
            nonlocal row
            allowed = nest.at(row.observation, mask).argmax(-1) if mask else actions
            row, _ = made.step(allowed)

        return _seconds_a_call(step)


def _zeros(
    environment: specs.EnvironmentSpec,
    policy: agent.Agent,
    unroll_length: int,
    size: int,
    num_predecessors: int = 0,
) -> Any:
    spec = specs.trajectory_spec(
        environment,
        policy.output_spec(),
        policy.core_state_spec(),
        unroll_length,
        size,
        num_predecessors=num_predecessors,
    )
    arrays = specs.example_trajectory(environment, spec)
    return nest.map_structure(torch.from_numpy, arrays)


def _inference_secs(config: Any, environment: specs.EnvironmentSpec) -> float:
    policy, size = agent.make(config, environment), config.actors.environments
    policy.precision = config.inference.precision
    batch = _zeros(environment, policy, config.unroll_length, size)
    row = nest.map_structure(lambda leaf: leaf[0], batch.time_step)
    state, generator = policy.initial_state(size), torch.Generator()
    with torch.inference_mode():
        return _seconds_a_call(lambda: policy.step(row, state, generator=generator))


def _update_secs(config: Any, environment: specs.EnvironmentSpec) -> float:
    policy = agent.make(config, environment)
    rows, size = config.unroll_length, config.batch_size
    batch = _zeros(environment, policy, rows, size, derived.num_predecessors(config))
    the_learner = learner.Learner(config, policy)
    sample = replay_correction.all_fresh(config)
    return _seconds_a_call(lambda: the_learner.update(batch, _LIVE, sample))


def _cheapest_size(config: Any, environment: specs.EnvironmentSpec) -> int:
    """Returns the smallest number of environments within 5 % of the lowest cost."""
    fresh = derived.num_fresh(config) or config.batch_size
    step = _step(config, len(environment.players))
    divisors = [
        n
        for n in range(step, min(fresh, _MAX_ENVIRONMENTS) + 1, step)
        if fresh % n == 0
    ]
    costs = {}
    for size in divisors[-_SIZES:]:
        config.actors.environments = size
        seconds = _environment_secs(config.environment, size)
        seconds += _inference_secs(config, environment)
        costs[size] = seconds / size
    limit = 1.05 * min(costs.values())
    return next(size for size in sorted(costs) if costs[size] <= limit)


def _fastest_cut(config: Any, environment: specs.EnvironmentSpec) -> int:
    """Returns the number of micro-batches with the fastest update."""
    seconds = {}
    for parts in _MICRO_BATCHES:
        if minibatches.are_equal(config, parts):
            config.learner.micro_batches = parts
            seconds[parts] = _update_secs(config, environment)
    return min(seconds, key=lambda parts: seconds[parts])
