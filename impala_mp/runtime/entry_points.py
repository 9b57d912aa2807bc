"""Main functions of the child processes."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from impala_mp import errors, seeding
from impala_mp.algorithms import cuda
from impala_mp.config import derived, user_code
from impala_mp.environments import factory, members
from impala_mp.monitoring import profiling
from impala_mp.networks import agent
from impala_mp.runtime import life_pipe, process_end, resources, signals, streams
from impala_mp.storage import files
from impala_mp.transport import (
    control_block,
    inference_requests,
    ranks,
    shared as shared_lib,
    topology,
)
from impala_mp.workers import (
    actor,
    builders,
    evaluation_loop,
    inference_server,
    learner_loop,
    learner_process,
    rank_loop,
    served_actor,
)

Policies = Sequence[shared_lib.Shared]  # one of each; the run's parts are the same

END = signal.SIGUSR2  # from the supervisor, to a process that hangs

# Exit codes for the supervisor. An environment may exit with any other code.
BAD_INPUT, RUN_FAILED, NOT_SAVED, PEERS_LOST = 211, 212, 213, 214
CAUSE = "Cause: "  # begins the line of a log that the supervisor reports


def main(
    seat: topology.Seat,
    incarnation: int,
    log: str,
    policies: Policies,
    life: Any,
) -> NoReturn:
    """Runs one incarnation of a seat to its end, and exits with 0.

    A failure leaves a line with its cause in the log. BAD_INPUT and RUN_FAILED leave
    nothing else; any other failure leaves a traceback, too, and exits with 1.

    Args:
      log: file that takes its output and its traceback.
    """
    _settle(incarnation, log, life)
    shared = policies[0]
    row = shared.row(seat)
    row.set("pid", os.getpid())
    row.set("incarnation", incarnation)
    row.beat(control_block.State.STARTING)
    seeding.seed_globals(shared.seeds(seat.role, seat.index, incarnation))
    code = 0
    with contextlib.suppress(errors.Interrupted), contextlib.ExitStack() as at_end:
        try:
            _ROLES[seat.role](seat, incarnation, policies, at_end)
        except errors.BadInput as error:
            _print_cause(str(error))
            code = BAD_INPUT
        except errors.RunFailed as error:
            _print_cause(str(error))
            is_unsaved = isinstance(error, learner_loop.NotSaved)
            code = NOT_SAVED if is_unsaved else RUN_FAILED
        except ranks.PeersLost as error:
            _print_cause(str(error))
            code = PEERS_LOST
        except BaseException as error:  # an environment may call sys.exit
            traceback.print_exc()
            _print_cause(_explain(error))
            code = 1
    process_end.leave(code)


def _explain(error: BaseException) -> str:
    """Returns the error and the place in the user's code."""
    hung = isinstance(error, errors.Interrupted)  # the supervisor gives the reason
    return user_code.where(error) if hung else user_code.explain(error)


def _print_cause(text: str) -> None:
    """Prints a cause in one line."""
    print(CAUSE + " ".join(text.split()), file=sys.stderr, flush=True)


def _settle(incarnation: int, log: str, life: life_pipe.ChildEnd) -> None:
    life.bind()
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and not supervisor.is_alive():
        os._exit(
            1
        )  # it has counted this start as failed, and given the seat to another process
    _open_log(log)
    print(f"--- incarnation {incarnation}, pid {os.getpid()}", flush=True)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # SIGUSR1 to all processes requests a checkpoint; children print their stacks.
    signals.leave_to_supervisor()
    signal.signal(END, lambda number, frame: signals.interrupt(1))
    process_end.forget_exit_handlers()


def _open_log(path: str) -> None:
    """Sends all output to a file. A full disk loses it, and nothing else."""
    streams.survive_errors()
    # Without it the output goes to the supervisor's.
    with contextlib.suppress(OSError), files.open_to_append(path) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _act(
    seat: topology.Seat,
    incarnation: int,
    policies: Policies,
    at_end: contextlib.ExitStack,
) -> None:
    shared = policies[0]
    resources.take_cores(shared.cores.actors[seat.index], resources.ACTOR_NICENESS)
    torch.set_num_threads(shared.config.actors.threads)
    the_actor: actor.Actor | served_actor.ServedActor
    if shared.config.inference.mode == "server":
        the_actor = _act_served(seat, incarnation, policies)
    else:
        the_actor = builders.make_actor(seat, incarnation, policies)
    at_end.callback(the_actor.close)
    turns = shared.profile_updates if seat.index == 0 else 0
    profile = profiling.of_run(shared.folder, f"actor-{seat.index}", turns)
    the_actor.run(profile.turn)
    profile.close()
    shared.row(seat).beat(control_block.State.STOPPING)


def _act_served(
    seat: topology.Seat, incarnation: int, policies: Policies
) -> served_actor.ServedActor:
    """Returns an actor of the inference server, started."""
    shared = policies[0]
    config, row = shared.config, shared.row(seat)
    node = shared.seeds("actor", seat.index, incarnation)
    columns = sum(each.config.actors.environments for each in policies)
    size = columns // inference_requests.SEATS
    with contextlib.ExitStack() as after_failure:
        halves = []
        for _ in range(inference_requests.SEATS):
            halves.append(factory.make(config.environment, size, task=seat.index))
            after_failure.callback(halves[-1].close)
        made = served_actor.ServedActor(
            halves,
            [each.rings.ring(seat.index) for each in policies],
            shared.inference,
            shared.control,
            row,
            seat.index,
            incarnation,
            seeding.EnvironmentSeeds(node, columns),
            shared.run,
        )
        made.publish_names(shared.actor_names[seat.index])
        row.beat(control_block.State.RESETTING)
        made.reset()
        after_failure.pop_all()
    return made


def _learn(
    seat: topology.Seat,
    incarnation: int,
    policies: Policies,
    at_end: contextlib.ExitStack,
) -> None:
    shared = policies[0]
    resources.take_cores(shared.cores.learners[seat.index])
    torch.set_num_threads(shared.learner_threads)
    turns = shared.profile_updates if seat.index == 0 else 0
    profile = profiling.of_run(shared.folder, "learner", turns)
    deadline_secs = shared.config.shutdown.deadline_secs
    if shared.config.learner.ranks > 1:
        member = builders.make_rank(seat, shared, incarnation)
        member.start(print)
        rank_loop.run(member, deadline_secs, profile.turn)
    else:
        cuda.take_device(policies[seat.policies[0]].config.learner.device)
        loops = [builders.make_learner(seat, policies[k]) for k in seat.policies]
        learner_process.restore(loops, print)
        others = [x.control.books[0] for x in policies if x.number not in seat.policies]
        learner_process.run(loops, deadline_secs, profile.turn, others)
    profile.close()


def _evaluate(
    seat: topology.Seat,
    incarnation: int,
    policies: Policies,
    at_end: contextlib.ExitStack,
) -> None:
    shared = policies[0]
    resources.take_cores((), resources.EVALUATOR_NICENESS)
    torch.set_num_threads(1)
    row, settings = shared.row(seat), shared.config.evaluation
    row.beat(control_block.State.RESETTING)
    environments = {}
    suffixes = derived.task_suffixes(shared.config.environment)
    for task, suffix in enumerate(suffixes):
        environments[suffix] = members.make(
            shared.whole,
            derived.evaluation_environment(shared.config),
            min(settings.environments, settings.training_episodes),
            training=False,
            render_mode="rgb_array" if settings.films else None,
            task=task,
        )
        at_end.callback(environments[suffix].close)
    agents = [agent.make(each.config, each.environment) for each in policies]
    evaluation_loop.EvaluationLoop(policies, agents, environments, row).run()
    row.beat(control_block.State.STOPPING)


def _infer(
    seat: topology.Seat,
    incarnation: int,
    policies: Policies,
    at_end: contextlib.ExitStack,
) -> None:
    shared = policies[0]
    settings, row = shared.config.inference, shared.row(seat)
    resources.take_cores(shared.cores.server)
    cuda.take_device(settings.device)
    torch.set_num_threads(settings.threads)
    node = shared.seeds("inference", 0, incarnation)
    server = inference_server.InferenceServer(policies, row, seeding.torch_seed(node))
    server.run()
    row.beat(control_block.State.STOPPING)


def _receive(
    seat: topology.Seat,
    incarnation: int,
    policies: Policies,
    at_end: contextlib.ExitStack,
) -> None:
    from impala_mp.runtime import receiver_process  # Ray is an extra

    resources.take_cores(())
    torch.set_num_threads(1)
    receiver = receiver_process.Receiver(policies, policies[0].row(seat))
    at_end.callback(receiver.close)
    receiver.run()
    policies[0].row(seat).beat(control_block.State.STOPPING)


_ROLES: dict[str, Callable[..., None]] = {
    "actor": _act,
    "learner": _learn,
    "evaluator": _evaluate,
    "inference": _infer,
    "receiver": _receive,
}
