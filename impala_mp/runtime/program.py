"""One training, wired top to bottom."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import config_dict

from impala_mp import errors, nest, seeding, specs
from impala_mp.config import (
    by_value,
    container_limits,
    derived,
    learner_processes,
    live_hyperparameters,
    policies as policies_lib,
    rank_shares,
    validation,
)
from impala_mp.environments import league_games, members
from impala_mp.evaluation import conclusion
from impala_mp.monitoring import (
    display,
    health,
    live_control,
    reporter as reporter_lib,
    run_state,
)
from impala_mp.networks import agent, description, unused_fields
from impala_mp.runtime import (
    allocation,
    calibration,
    cluster_check,
    core_lease,
    lockstep,
    resources,
    signals,
    supervisor,
    warm_start,
)
from impala_mp.storage import checkpoint, trust, workdir
from impala_mp.transport import shared as shared_lib
from impala_mp.workers import accounting

Saved = tuple[dict[str, float], dict[str, int]]  # overrides and counts of a checkpoint


def train(
    config: config_dict.ConfigDict,
    path: str,
    profile_updates: int = 0,
    changes: Sequence[str] = (),
    start_from: str = "",
) -> None:
    """Trains in the folder `path`, and resumes a run that it contains.

    Args:
      changes: fields of learning that a resumed run may change.
      start_from: run that a new run takes its first weights from; see `warm_start`.

    Raises:
      BadInput: raised before anything is started or written.
      ChildFailed: a process failed past its restart budget.
    """
    num_cores = container_limits.num_cores()
    live = validation.validate(config, num_cores)
    resources.check_devices(config)
    folder = workdir.Workdir(path)
    seeding.seed_globals(seeding.sequence(config.seed, "main"))
    environments = probe(config)
    policies, chosen = prepare(config, live, environments, num_cores, folder.stored())
    changed = [*folder.check(config, changes), *chosen]
    changed += cluster_check.check(config, num_cores)
    folder.check_unused()
    allocation.check_room(config, policies, num_cores)
    found: list[str] = []
    starts = warm_start.read(start_from, folder, config, policies, found.append)
    saved = check_checkpoints(folder, config, list(environments), found.append)
    place = folder.policies if len(policies) > 1 else folder.checkpoints
    lease = core_lease.of_run(config, num_cores)
    shared = allocation.allocate(policies, place, num_cores, config, cores=lease.cores)
    try:
        with signals.Ending() as end:
            try:
                folder.open(config, list(environments))
                trust.add_by_value(config, folder.path)  # else in a temporary folder
                if starts:
                    found += warm_start.write(starts, folder, policies)
                run = 0 if config.runtime.mode == "lockstep" else folder.run
                run_facts = {"profile_updates": profile_updates, "run": run}
                shared = tuple(each._replace(**run_facts) for each in shared)
                kept = _carry_over(shared, saved, changes)
                news = [*found, *changed, *kept, *_described(shared)]
                news += [lease.sentence, trust.record(config, folder.path)]
                facts = _facts(config, policies, folder.path)
                finished = _show(shared, facts, folder, news, end)
            except errors.BadInput:  # from a child
                folder.withdraw()
                raise
            finally:
                allocation.release(shared)
                lease.close()
            _conclude(config, policies, folder.path, finished)
    finally:
        folder.close()
    if end.cut_short:
        _report_cut(folder.path)


def prepare(
    config: Any,
    live: live_hyperparameters.LiveHyperparameters,
    environments: dict[str, specs.EnvironmentSpec],
    num_cores: int,
    stored: Any = None,
) -> tuple[list[allocation.Policy], list[str]]:
    """Replaces automatic fields of `config`; returns the policies, and sentences.

    `live` are its live hyperparameters; `stored` is that of a run that resumes.

    Raises:
      BadInput: the config cannot run, or a network cannot be made.
    """
    league_games.check(config, environments)
    learner_processes.resolve(config, len(environments))
    if len(environments) == 1:
        (own,) = policies_lib.of_run(config, {"": 1})
        (spec,) = environments.values()
        made = allocation.make_agent(own, live, spec)
        if not stored:  # a run of an older version keeps what it began with
            unused_fields.check([(own.network, spec)])
        chosen = calibration.fill_in(own, spec, made, num_cores, stored)
        return [allocation.Policy("", own, live, spec, made)], chosen
    rank_shares.check_policies(config, len(environments))
    every = sum(len(spec.players) for spec in environments.values())
    count = 1 if config.population.size else every
    chosen = calibration.fill_in_several(config, count, num_cores, stored)
    policies = _policies(config, environments, num_cores)
    if not stored:
        unused_fields.check([(x.config.network, x.environment) for x in policies])
    parameters = [x for each in policies for x in each.agent.network.parameters()]
    devices = resources.choose_devices(config, sum(x.numel() for x in parameters))
    agents = [each.agent for each in policies]
    policies = _policies(config, environments, num_cores, agents)
    for each in policies:  # those with a device for themselves
        size = sum(x.numel() for x in each.agent.network.parameters())
        texts = resources.choose_devices(each.config, size)
        if texts:
            with policies_lib.naming(each.name):
                validation.check_relations(each.config, num_cores)
        devices += [f"Policy {each.name!r}: {text}" for text in texts]
    learner_processes.check_devices({each.name: each.config for each in policies})
    return policies, [*devices, *chosen]


def _policies(
    config: Any,
    environments: dict[str, specs.EnvironmentSpec],
    num_cores: int,
    agents: Sequence[agent.Agent] = (),
) -> list[allocation.Policy]:
    """Returns the policies of a run, with new agents or these.

    Raises:
      BadInput: the config of a policy cannot run, or its network cannot be made.
    """
    counts = {name: len(spec.players) for name, spec in environments.items()}
    found = []
    for number, (own, (name, spec)) in enumerate(
        zip(policies_lib.of_run(config, counts), environments.items(), strict=True)
    ):
        with policies_lib.naming(name):
            live = validation.validate(own, num_cores)
            resources.check_devices(own)
            made = agents[number : number + 1] or [
                allocation.make_agent(own, live, spec)
            ]
        found.append(allocation.Policy(name, own, live, spec, made[0]))
    return found


def _carry_over(
    shared: Sequence[shared_lib.Shared],
    saved: Sequence[Saved],
    changes: Sequence[str],
) -> list[str]:
    """Restores the overrides and counts of checkpoints; returns sentences."""
    kept = []
    for each, (overrides, counts) in zip(shared, saved, strict=True):
        accounting.carry_over(each.control.books[0], counts)
        kept += live_control.restore(live_control.of(each), overrides, changes)
    return kept


def probe(config: Any) -> dict[str, specs.EnvironmentSpec]:
    """Returns the specs of the environment, by policy.

    Raises:
      BadInput: it cannot be made, or the policy cannot play that of evaluations.
    """
    environment = members.probe(config)
    if config.evaluation.kwargs:
        other = members.probe(config, derived.evaluation_environment(config))
        if other != environment:
            raise errors.BadInput(
                f"evaluation.kwargs ({dict(config.evaluation.kwargs)}) change what the"
                f" policy sees or does: {other} instead of {environment}. Leave out"
                " those that do."
            )
    return environment


def _report_cut(path: str) -> None:
    command = conclusion.command("impala-eval")
    print(
        "Stopped early on request. The run is saved. To evaluate it:"
        f" {command} --workdir={path}"
    )


def _facts(
    config: Any, policies: Sequence[allocation.Policy], path: str
) -> run_state.Facts:
    here = os.path.relpath(path)
    return run_state.Facts(
        by_value.without_digests(config.environment.id),
        config.total_agent_steps,
        config.algorithm,
        sum(x.numel() for each in policies for x in each.agent.network.parameters()),
        config.seed,
        min(here, path, key=len),
    )


def _show(
    shared: Sequence[shared_lib.Shared],
    facts: run_state.Facts,
    folder: workdir.Workdir,
    news: list[str],
    end: signals.Ending,
) -> bool:
    """Runs the training with a display; returns True when it is finished."""
    log = os.path.join(folder.logs, "supervisor.log")
    with display.Display(facts, log=log) as screen:
        for sentence in filter(None, news):
            screen.message(sentence)
        return _run(shared, folder, screen, end)


def check_checkpoints(
    folder: workdir.Workdir,
    config: Any,
    names: Sequence[str],
    report: Callable[[str], None],
) -> list[Saved]:
    """Returns the overrides and the counts of the newest checkpoint of each policy.

    A run that has learned config.total_agent_steps learns no more; it is reported.

    Raises:
      BadInput: there are checkpoints, but none is valid.
    """
    try:
        states = [
            checkpoint.load_newest(folder.checkpoints_of(name), report)
            for name in names
        ]
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    saved = {state and state.get("num_saved") for state in states}
    if len(saved) > 1 and config.learner.processes == 1:
        report(
            "The newest checkpoints of the policies are not of the same moment. Each"
            " policy resumes from its own."
        )
    learned = [state["learner"] for state in states if state]
    if learned:
        steps, updates = (
            sum(each[name] for each in learned) for name in ("agent_steps", "updates")
        )
        report(f"Resuming from update {updates:,}, after {steps:,} agent steps.")
        total = config.total_agent_steps
        if steps >= total:
            report(
                f"total_agent_steps ({total:,}) are learned already. To learn more, set"
                f" config.total_agent_steps above {steps:,}."
            )
    kept = [state or {} for state in states]
    return [(each.get("overrides", {}), each.get("counts", {})) for each in kept]


def _described(policies: Sequence[shared_lib.Shared]) -> list[str]:
    """Returns sentences on the inputs and outputs, the cores and the memory."""
    shared = policies[0]
    different = policies[:1] if shared.population else policies
    cores = ""  # in lockstep one process does all
    if shared.config.runtime.mode == "processes":
        cores = resources.explain_cores(
            shared.cores,
            shared.learner_threads,
            derived.server_threads(shared.config.inference),
        )
    return [
        *(text for each in different for text in _inputs(each)),
        cores,
        resources.explain_ranks(shared.config),
        resources.explain_processes(shared.topology, [x.policy for x in policies]),
        *(text for each in different for text in _memory(each)),
        resources.cpu_limit(),
    ]


def _inputs(shared: shared_lib.Shared) -> list[str]:
    lines = description.sentences(shared.config, shared.environment)
    if shared.population or not shared.policy:
        return lines
    players = ", ".join(shared.environment.players)
    return [f"Policy {shared.policy} plays {players}.", *lines]


def _memory(shared: shared_lib.Shared) -> list[str]:
    """Returns sentences on the memory of one policy."""
    batch_bytes = sum(leaf.nbytes for leaf in nest.flatten(shared.batch))
    ranks = shared.config.learner.ranks
    holders = {"published": 3, "the learner's (beside gradient and optimizer)": ranks}
    if shared.config.inference.mode == "server":
        holders["the inference server's"] = 2
    else:
        count = len(shared.topology.actors_of(shared.number))
        holders["the actors'"] = count
    if derived.evaluates(shared.config):
        holders["snapshots for the evaluator"] = 3
        holders["the evaluator's"] = 1
    if derived.has_target_network(shared.config):
        holders["the target network's"] = ranks
    if derived.has_league(shared.config):
        holders["the league's"] = derived.num_frozen(shared.config)
        holders["its guests'"] = allocation.GUESTS * len(shared.cores.actors)
    found = [
        resources.explain_memory(
            holders,
            shared.rings.nbytes,
            batch_bytes,
            shared.store.num_bytes,
            shared.learner_memory.nbytes if shared.learner_memory.num_bytes else 0,
        ),
        resources.explain_replay(
            *allocation.replay_size(shared.config, shared.batch),
            shared.config.replay.save,
            shared.config.shutdown.deadline_secs,
        ),
    ]
    if shared.policy:
        whose = "Each member" if shared.population else f"Policy {shared.policy}"
        found = [f"{whose}: {text}" for text in found if text]
    return found


def _run(
    shared: Sequence[shared_lib.Shared],
    folder: workdir.Workdir,
    screen: display.Display,
    end: signals.Ending,
) -> bool:
    """Runs the training; returns True when finished, False when stopped."""
    reporter = reporter_lib.Reporter(shared, folder.path, screen, folder.run)
    try:
        if shared[0].config.runtime.mode == "lockstep":
            finished = lockstep.run(
                shared,
                screen.message,
                lambda state: reporter.tick([_alone(state)]),
                reporter.look_at_population,
            )
            end.saved()
            return finished
        finished = supervisor.Supervisor(
            shared, folder.logs, screen.message, reporter.tick
        ).run()
        end.saved()
        return finished
    finally:
        if reporter.bottleneck:
            screen.message(reporter.bottleneck)
        reporter.close()


def _alone(state: str) -> health.Status:
    """Returns the status of the only process of a lockstep run."""
    return health.Status("lockstep", 0, os.getpid(), 0, state, 0, 0.0, "")


def _conclude(
    config: Any, policies: Sequence[allocation.Policy], path: str, finished: bool
) -> None:
    if not finished:
        print(f"Stopped. The same command resumes {path}.")
        return
    name = by_value.without_digests(config.environment.id)
    conclusion.conclude(name, path, config, [each.agent for each in policies])
