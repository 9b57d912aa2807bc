"""Checks of a config: each field by its rules, and the relations between fields."""

from typing import Any

from impala_mp import errors
from impala_mp.config import (
    base,
    cluster_rules,
    derived,
    effects,
    fields,
    learner_processes,
    live_hyperparameters,
    minibatches,
    population,
    rank_shares,
)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise errors.BadInput(sentence)


def validate(config: Any, num_cores: int) -> live_hyperparameters.LiveHyperparameters:
    """Refuses a config that cannot run, before anything is started.

    Returns:
      The live hyperparameters, whose schedules are parsed here.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    check_fields(config)
    live = live_hyperparameters.of_config(config)
    check_relations(config, num_cores)
    return live


def check_fields(config: Any) -> None:
    """Refuses values that break the rules of their fields.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    for field in base.FIELDS:
        field.check(fields.get(config, field.name))


def check_relations(config: Any, num_cores: int) -> None:
    """Refuses fields that do not go together.

    Raises:
      BadInput: with the fields, their values and the cure.
    """
    check_core(config.network)
    _check_algorithm(config)
    if config.inference.mode == "server":
        _check_server(config)
    _require(
        not config.learner.cuda_graph or config.learner.device[:4] in ("cuda", "auto"),
        f"learner.cuda_graph needs a GPU, and learner.device is"
        f" {config.learner.device!r}. Set config.learner.cuda_graph=False, or"
        " config.learner.device=cuda.",
    )
    _require(
        config.learner.micro_batches > 0 or config.learner.device in ("cpu", "auto"),
        f"learner.micro_batches=auto is measured on a CPU only, and learner.device is"
        f" {config.learner.device!r}. Set config.learner.micro_batches to a number; the"
        " smallest for which a batch fits is the fastest.",
    )
    _require(
        config.runtime.mode == "processes" or not config.evaluation.interval_steps,
        f"evaluation.interval_steps ({config.evaluation.interval_steps}) needs"
        " processes, and runtime.mode is lockstep. Set"
        " config.evaluation.interval_steps=0.",
    )
    _require(
        config.max_policy_lag < 0 or not config.actors.policy_delay,
        f"actors.policy_delay ({config.actors.policy_delay}) makes the policy lag that"
        f" max_policy_lag ({config.max_policy_lag}) forbids. Set one of them only.",
    )
    count, num_tasks = config.actors.count, len(derived.task_names(config.environment))
    _require(
        count == 0 or count >= num_tasks,
        f"actors.count ({count}) must be at least {num_tasks}, one a task of"
        f" environment.id ({config.environment.id!r}). Set config.actors.count.",
    )
    _check_replay(config)
    population.check(config)
    learner_processes.check(config)
    effects.check(config)
    if config.learner.ranks > 1:
        rank_shares.check(config)
    if config.cluster.hosts:
        cluster_rules.check(config)
    _check_batch(config, derived.num_actors(config.actors, num_cores))


def _check_server(config: Any) -> None:
    _require(
        config.runtime.mode == "processes",
        "inference.mode=server needs processes, and runtime.mode is lockstep. Set"
        " config.inference.mode=actor.",
    )
    _require(
        not derived.has_league(config),
        f"league.every ({config.league.every}) needs actors with their own networks,"
        " and inference.mode is server. Set config.inference.mode=actor, or"
        " config.league.every=0.",
    )
    envs = config.actors.environments
    _require(
        envs % 2 == 0,
        f"actors.environments ({envs}) must be even with inference.mode=server, which"
        f" steps two halves in turn. Set config.actors.environments to {envs + 1}.",
    )


def _check_replay(config: Any) -> None:
    """Refuses unsound settings of the replay.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    settings = config.replay
    if settings.reuse:
        _check_reuse(config)
    if settings.ratio:
        _check_shares(config)
    if derived.has_replay(config):
        _require(
            config.network.core == "none" or settings.burn_in,
            f"network.core={config.network.core} without replay.burn_in would learn"
            " from recurrent states that older parameters left. Set"
            " config.replay.burn_in=True.",
        )


def _check_reuse(config: Any) -> None:
    reuse, ratio = config.replay.reuse, config.replay.ratio
    _require(
        not ratio,
        f"replay.reuse ({reuse:g}) draws all of a batch from the replay, and"
        f" replay.ratio ({ratio}) a share of it. Set one of them to 0.",
    )
    _require(
        derived.learns_action_values(config),
        f"replay.reuse ({reuse:g}) learns from replayed data alone, and"
        f" algorithm={config.algorithm} needs data of the newest policy in each batch."
        " Set config.replay.reuse=0 and config.replay.ratio, or config.algorithm=dqn"
        " or iqn.",
    )


def _check_batch(config: Any, num_actors: int) -> None:
    """Refuses a batch that the actors' slots cannot fill, or that has no equal parts.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    size, envs = config.batch_size, config.actors.environments
    minibatches.check(config)
    if not (envs and size):
        return  # to be chosen, and checked then
    fresh = derived.num_fresh(config)
    _require(
        fresh % envs == 0,
        f"batch_size ({size}) must be a multiple of actors.environments ({envs}). Set"
        f" config.batch_size to {-(-size // envs) * envs}.",
    )
    count, slots = num_actors, config.actors.slots
    _require(
        count * slots * envs >= fresh,
        f"batch_size ({size}) needs {fresh // envs} slots, but {count} actors with"
        f" {slots} slots each have {count * slots}, and learner and actors would wait"
        f" for each other for ever. Set config.actors.slots to"
        f" {-(-fresh // (envs * count))}.",
    )


def _check_algorithm(config: Any) -> None:
    """Refuses settings that would run and give wrong results.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    popart, polyak = config.loss.popart, config.target.polyak
    for field in ("momentum", "decay"):
        value = config.optimizer[field]
        _require(
            config.optimizer.name != "adam" or value < 1.0,
            f"optimizer.{field} ({value}) must be below 1 with optimizer.name=adam,"
            " whose bias correction would divide by 0. Set"
            f" config.optimizer.{field} below 1.",
        )
    clipping, rescaling = config.loss.reward_clipping, config.dqn.rescaling
    if popart and clipping == "abs_one":
        raise errors.BadInput(
            f"loss.popart finds the scale of rewards, and loss.reward_clipping"
            f" ({clipping!r}) takes it away before, which makes it pointless. Set"
            " config.loss.reward_clipping=none, or config.loss.popart=False."
        )
    if popart and rescaling != "none":
        raise errors.BadInput(
            f"dqn.rescaling ({rescaling!r}) and loss.popart both set the scale of the"
            " values. Set config.loss.popart=False, or config.dqn.rescaling=none."
        )
    if popart and config.network.dueling:
        raise errors.BadInput(
            "network.dueling has two heads, and loss.popart scales a single one. Set"
            " config.loss.popart=False, or config.network.dueling=False."
        )
    if config.algorithm == "iqn" and config.dqn.returns != "n_step":
        raise errors.BadInput(
            f"dqn.returns ({config.dqn.returns!r}) adds up errors of single values, and"
            " algorithm=iqn has quantiles. Set config.dqn.returns=n_step, or"
            " config.algorithm=dqn."
        )
    if config.algorithm == "impact" and not config.target.period:
        raise errors.BadInput(
            f"target.period ({config.target.period}) leaves algorithm=impact without"
            " the target network that its ratios need. Set config.target.period to at"
            " least 1."
        )
    if config.algorithm != "vtrace" and popart and polyak:
        raise errors.BadInput(
            f"target.polyak ({polyak}) would average weights that loss.popart has"
            " scaled differently, which is no average of values. Set"
            " config.target.polyak=0, or config.loss.popart=False."
        )


def check_core(network: Any) -> None:
    """Refuses a core, in `config.network`, that cannot be made.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    name, size, heads = network.core, network.core_size, network.gtrxl.heads
    base.BY_NAME["network.core"].check(name)
    if name != "none" and network.critic == "separate":
        raise errors.BadInput(
            "network.critic=separate gives values an encoder and no recurrent core, and"
            f" network.core is {name}. Set config.network.critic=shared, or"
            " config.network.core=none."
        )
    if name == "gtrxl" and size % heads:
        raise errors.BadInput(
            f"network.core_size ({size}) must be a multiple of network.gtrxl.heads"
            f" ({heads}). Set config.network.core_size to {-(-size // heads) * heads}."
        )


def _check_shares(config: Any) -> None:
    size, ratio = config.batch_size, config.replay.ratio
    if not size:
        return  # to be chosen, and checked then
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
        f" both there must be some. Set {cure}."
    )
