"""One training, wired top to bottom."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import config_dict

from impala_mp import errors, nest, seeding, specs
from impala_mp.config import by_value, derived, validation
from impala_mp.environments import factory
from impala_mp.evaluation import conclusion
from impala_mp.monitoring import (
    display,
    health,
    live_control,
    reporter as reporter_lib,
    run_state,
)
from impala_mp.networks import agent, description
from impala_mp.runtime import (
    allocation,
    calibration,
    lockstep,
    resources,
    signals,
    supervisor,
    warm_start,
)
from impala_mp.storage import checkpoint, trust, workdir
from impala_mp.transport import shared as shared_lib
from impala_mp.workers import accounting


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
    num_cores = len(os.sched_getaffinity(0))
    live = validation.validate(config, num_cores)
    resources.check_devices(config)
    folder = workdir.Workdir(path)
    seeding.seed_globals(seeding.sequence(config.seed, "main"))
    environment = _probe(config)
    policy = allocation.make_agent(config, live, environment)
    stored = folder.stored()
    chosen = calibration.fill_in(config, environment, policy, num_cores, stored)
    changed = [*folder.check(config, changes), *chosen]
    folder.check_unused()
    slots = allocation.layouts(config, environment, policy, num_cores)
    resources.check_descriptors(config, allocation.make_topology(config, num_cores))
    found: list[str] = []
    start = warm_start.read(start_from, folder, policy, found.append)
    overrides, counts = check_checkpoints(folder, config, found.append)
    shared = allocation.allocate(
        config, live, environment, slots, folder.checkpoints, num_cores
    )
    try:
        with signals.Ending() as end:
            try:
                folder.open(config)
                if start:
                    found += warm_start.write(start, folder, config, policy)
                run = 0 if config.runtime.mode == "lockstep" else folder.run
                shared = shared._replace(profile_updates=profile_updates, run=run)
                accounting.carry_over(shared.row(shared.topology.learner()), counts)
                kept = live_control.restore(shared.control, overrides, changes)
                news = [*found, *changed, *kept, *_described(shared, environment)]
                news.append(trust.record(config, folder.path))
                facts = _facts(config, policy, folder.path)
                finished = _show(shared, facts, folder, news, end)
            except errors.BadInput:  # from a child
                folder.withdraw()
                raise
            finally:
                allocation.release(shared)
            _conclude(config, policy, folder.path, finished)
    finally:
        folder.close()
    if end.cut_short:
        _report_cut(folder.path)


def _probe(config: Any) -> specs.EnvironmentSpec:
    """Returns the spec of the environment.

    Raises:
      BadInput: it cannot be made, or the policy cannot play that of evaluations.
    """
    environment = factory.probe(config.environment)
    if config.evaluation.kwargs:
        other = factory.probe(derived.evaluation_environment(config))
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


def _facts(config: Any, policy: agent.Agent, path: str) -> run_state.Facts:
    here = os.path.relpath(path)
    return run_state.Facts(
        by_value.without_digests(config.environment.id),
        config.total_agent_steps,
        config.algorithm,
        sum(each.numel() for each in policy.network.parameters()),
        config.seed,
        min(here, path, key=len),
    )


def _show(
    shared: shared_lib.Shared,
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
    folder: workdir.Workdir, config: Any, report: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, int]]:
    """Returns the overrides and the counts of the newest checkpoint.

    A run that has learned config.total_agent_steps learns no more; it is reported.

    Raises:
      BadInput: there are checkpoints, but none is valid.
    """
    try:
        state = checkpoint.load_newest(folder.checkpoints, report)
    except checkpoint.Damaged as error:
        raise errors.BadInput(str(error)) from error
    if state is None:
        return {}, {}
    steps, total = state["learner"]["agent_steps"], config.total_agent_steps
    report(
        f"Resuming from update {state['learner']['updates']:,}, after"
        f" {steps:,} agent steps."
    )
    if steps >= total:
        report(
            f"total_agent_steps ({total:,}) are learned already. To learn more, set"
            f" config.total_agent_steps above {steps:,}."
        )
    return state.get("overrides", {}), state.get("counts", {})


def _described(
    shared: shared_lib.Shared, environment: specs.EnvironmentSpec
) -> list[str]:
    """Returns sentences on the inputs and outputs, the cores and the memory."""
    batch_bytes = sum(leaf.nbytes for leaf in nest.flatten(shared.batch))
    holders = {"published": 3, "the learner's (beside gradient and optimizer)": 1}
    if shared.config.inference.mode == "server":
        holders["the inference server's"] = 2
    else:
        holders["the actors'"] = len(shared.cores.actors)
    if derived.evaluates(shared.config):
        holders["snapshots for the evaluator"] = 3
        holders["the evaluator's"] = 1
    if derived.has_target_network(shared.config):
        holders["the target network's"] = 1
    return [
        *description.sentences(shared.config, environment),
        resources.explain_cores(
            shared.cores,
            shared.learner_threads,
            derived.server_threads(shared.config.inference),
        ),
        resources.explain_memory(
            holders,
            shared.rings.memory.nbytes,
            batch_bytes,
            shared.store.num_bytes,
            shared.learner_memory.nbytes if shared.learner_memory.num_bytes else 0,
        ),
        resources.explain_replay(
            *allocation.replay_size(shared.config, shared.batch),
            shared.config.replay.save,
            shared.config.shutdown.deadline_secs,
        ),
        resources.cpu_limit(),
    ]


def _run(
    shared: shared_lib.Shared,
    folder: workdir.Workdir,
    screen: display.Display,
    end: signals.Ending,
) -> bool:
    """Runs the training; returns True when finished, False when stopped."""
    reporter = reporter_lib.Reporter(shared, folder.path, screen, folder.run)
    try:
        if shared.config.runtime.mode == "lockstep":
            finished = lockstep.run(
                shared, screen.message, lambda state: reporter.tick([_alone(state)])
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


def _conclude(config: Any, policy: agent.Agent, path: str, finished: bool) -> None:
    if not finished:
        print(f"Stopped. The same command resumes {path}.")
        return
    name = by_value.without_digests(config.environment.id)
    conclusion.conclude(name, path, config, policy)
