"""Plans cores, devices, memory and descriptors; checks and explains them."""

import itertools
import os
import resource
from collections.abc import Sequence
from typing import Any

import torch

from impala_mp import errors
from impala_mp.config import container_limits
from impala_mp.runtime import pidfd
from impala_mp.transport import shared, topology

# With more threads than cores, the learner goes first: an actor that waits for a core
# fills its ring later, but a learner that waits delays all actors.
ACTOR_NICENESS = 5
EVALUATOR_NICENESS = 10  # an evaluation may come late

AUTO = "auto"  # as a device
_GPU_PARAMETERS = 300_000  # a rule of thumb, not measured yet
_MOST_PASSED = 249  # beside the four of the fork server: Linux sends 253 at once


def plan(
    cores: Sequence[int],
    num_actors: int,
    actor_threads: int,
    learner_threads: int,
    server_threads: int = 0,
    num_learners: int = 1,
) -> shared.Cores:
    """Assigns a core to every thread, or none if there are too few.

    Each of the processes that learn has `learner_threads`.
    """
    learning = [learner_threads] * num_learners
    threads = [*learning, server_threads, *[actor_threads] * num_actors]
    if sum(threads) > len(cores):
        return shared.Cores(((),) * num_learners, ((),) * num_actors)
    ends = itertools.accumulate(threads)
    found = [
        tuple(cores[end - count : end])
        for count, end in zip(threads, ends, strict=True)
    ]
    learners, (server, *actors) = found[:num_learners], found[num_learners:]
    return shared.Cores(tuple(learners), tuple(actors), server)


def explain_cores(
    cores: shared.Cores, learner_threads: int, server_threads: int = 0
) -> str:
    """Returns a sentence on which process has which cores."""
    count, num_learners = len(cores.actors), len(cores.learners)
    if cores.learners[0]:
        several = f", {num_learners} processes," if num_learners > 1 else ""
        server = (
            f" the inference server {_cores(cores.server)}," if server_threads else ""
        )
        return (
            f"Cores: the learner{several} has"
            f" {_cores(tuple(itertools.chain(*cores.learners)))},{server} and"
            f" {count} actors {_cores(tuple(itertools.chain(*cores.actors)))}."
        )
    server = f", {server_threads} inference" if server_threads else ""
    learning = learner_threads * num_learners
    return (
        f"Cores: {count} actors{server} and {learning} learner threads share"
        f" {container_limits.num_cores()} cores; the learner goes first."
    )


def explain_ranks(config: Any) -> str:
    """Returns a sentence on the shares of the learner's ranks; "" for a single one."""
    ranks, size = config.learner.ranks, config.batch_size
    if ranks == 1:
        return ""
    actors = config.actors.count // ranks
    return (
        f"Learner: {ranks} ranks; each learns {size // ranks} of the {size}"
        f" trajectories of a batch, those of {actors} actor{'s' * (actors > 1)}"
        f"{_of_hosts(config.cluster.hosts, ranks)}."
    )


def _of_hosts(hosts: int, ranks: int) -> str:
    """Returns what actor hosts add to the sentence on ranks."""
    if not hosts:
        return ""
    least, rest = divmod(hosts, ranks)
    if not rest:
        return f" and {least} host{'s' * (least > 1)}"
    return (
        f" and {least} or {least + 1} hosts. Those with fewer hold the others back. Set"
        f" config.cluster.hosts to a multiple of {ranks}"
    )


def explain_processes(seats: topology.Topology, policies: Sequence[str]) -> str:
    """Returns a sentence on which process learns which policies; "" for a single one.

    `policies` are their names.
    """
    if len(seats.learners) == 1 or len(policies) == 1:
        return ""
    parts = [
        f"process {seat.index} learns {', '.join(policies[k] for k in seat.policies)}"
        for seat in seats.learners
    ]
    return f"Learner: {len(parts)} processes; {', '.join(parts)}."


def take_cores(cores: tuple[int, ...], niceness: int = 0) -> None:
    """Binds this process to `cores`; without any, raises its niceness.

    A cgroup or taskset may have taken cores away since they were planned. If none of
    them is left, the process may run on any core that is allowed.
    """
    allowed = os.sched_getaffinity(0).intersection(cores)
    try:
        if allowed:
            os.sched_setaffinity(0, allowed)
            return
    except OSError:  # they were taken away just now
        pass
    os.nice(niceness)


def _cores(cores: tuple[int, ...]) -> str:
    if len(cores) == 1:
        return f"core {cores[0]}"
    if cores == tuple(range(cores[0], cores[-1] + 1)):
        return f"cores {cores[0]} to {cores[-1]}"
    return f"cores {', '.join(map(str, cores))}"


def choose_devices(config: Any, num_parameters: int) -> list[str]:
    """Replaces automatic devices of `config`; returns a sentence for each."""
    sentences = []
    for name in ("learner", "inference"):
        if config[name].device == AUTO:
            config[name].device, why = _choose_device(num_parameters)
            device = f"{name}.device = {config[name].device} (auto)"
            sentences.append(f"{device}: {why}.")
    _check_gpus(config)
    return sentences


def _choose_device(num_parameters: int) -> tuple[str, str]:
    """Returns a device and the reason.

    A small network is faster on a CPU, where an update starts no kernels.
    """
    count = f"the network has {num_parameters:,} parameters"
    if not _num_gpus():
        return "cpu", "torch sees no CUDA device"
    if num_parameters < _GPU_PARAMETERS:
        return "cpu", f"{count}, and a GPU is taken from {_GPU_PARAMETERS:,} on"
    return "cuda", count


def _num_gpus() -> int:
    # The supervisor never touches CUDA: NVML can be asked without a context.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    return torch.cuda.device_count()


def check_devices(config: Any) -> None:
    """Raises BadInput unless the devices of `config` are available."""
    for name in ("learner", "inference"):
        check_device(f"{name}.device", config[name].device)
    _check_gpus(config)


def _check_gpus(config: Any) -> None:
    """Raises BadInput unless each of several ranks has a GPU, or none needs one."""
    ranks, device = config.learner.ranks, config.learner.device
    if ranks > 1 and device == "cuda" and _num_gpus() < ranks:
        raise errors.BadInput(
            f"learner.ranks ({ranks}) need a GPU each, and {_num_gpus()} CUDA devices"
            f" are visible. Set config.learner.ranks to {_num_gpus()}, or"
            " config.learner.device=cpu."
        )


def check_device(field: str, device: str) -> None:
    """Raises BadInput unless `device` is available; creates no CUDA context."""
    if device == AUTO:
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise errors.BadInput(
            f"{field} ({device!r}) must be auto, cpu, cuda or cuda:N. Set"
            f" config.{field}."
        ) from error
    if kind not in ("cpu", "cuda"):
        raise errors.BadInput(
            f"{field} ({device!r}) is not supported. Use auto, cpu, cuda or cuda:N."
        )
    index = torch.device(device).index
    if kind == "cpu" and index is not None:
        raise errors.BadInput(
            f"{field} ({device!r}) numbers CPUs, which torch does not. Set"
            f" config.{field}=cpu."
        )
    if kind == "cuda" and (index or 0) >= _num_gpus():
        raise errors.BadInput(
            f"{field} ({device!r}) is not available: {_num_gpus()}"
            f" CUDA devices are visible. Set config.{field}=cpu, or install the"
            " driver and a CUDA build of torch."
        )


def descriptors_passed(seats: topology.Topology) -> int:
    """Returns the descriptors that each child gets at its start.

    They are the run's memory, the life pipe, and all doorbells: the inference server's,
    and those of the seats that have one.
    """
    rows = {
        row
        for policy in range(seats.num_policies)
        for each in seats.bells(policy)
        for row in each
    }
    return 3 + len(rows)


def descriptors_needed(
    seats: topology.Topology, num_children: int, num_open: int
) -> int:
    """Returns the supervisor's descriptors at a child's start, the most of any process.

    They are those that it passes, one for each block of memory (Python's mmap
    duplicates that of the file), two for each child, and a reserve for a start and the
    files of a run. Four blocks are the run's and six a policy's, with actor hosts two
    more and one.
    """
    hosts, spare = seats.num_hosts > 0, 19
    blocks = 4 + 2 * hosts + (6 + hosts) * seats.num_policies
    return num_open + descriptors_passed(seats) + blocks + 2 * num_children + spare


def check_descriptors(config: Any, seats: topology.Topology) -> str:
    """Returns a sentence on the descriptors that the run needs.

    Raises:
      BadInput: the limit of this process, or of a child's start, is lower; or the
        kernel has no descriptors of processes.
    """
    children = len(seats.seats) if config.runtime.mode == "processes" else 0
    number = descriptors_needed(seats, children, len(os.listdir("/proc/self/fd")))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and number > limit:
        raise errors.BadInput(
            f"about {number} file descriptors are needed, but {limit} are allowed."
            f" Raise the limit with `ulimit -n {2 * number}`, or lower"
            " config.actors.count."
        )
    if children:
        pidfd.check()
        _check_passed(seats)
    return f"about {number} are needed, {limit} allowed."


def _check_passed(seats: topology.Topology) -> None:
    excess = descriptors_passed(seats) - _MOST_PASSED
    if excess > 0:
        raise errors.BadInput(
            f"{len(seats.actors)} actors and {len(seats.learners)} processes that learn"
            f" need {_MOST_PASSED + excess} file descriptors each, and Python starts a"
            f" process with at most {_MOST_PASSED}. Lower config.actors.count or"
            f" config.learner.processes by {excess}."
        )


def check_file_size(num_bytes: int) -> None:
    """Raises BadInput if the largest file of a run, `num_bytes`, is not allowed.

    Shared memory is a file, too.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and num_bytes > limit:
        raise errors.BadInput(
            f"a file of {_mib(num_bytes)} is needed, but {_mib(limit)} are allowed."
            " Raise the limit with `ulimit -f unlimited`."
        )


def cpu_limit() -> str:
    """Returns a sentence on the limit of CPU time, or "" without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_CPU)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return (
        f"The kernel ends each process after {limit:,} s of CPU time, the main process"
        " too. Raise the limit with `ulimit -t unlimited`."
    )


_SAVE_SECS = 10.0  # per GiB of a checkpoint, hashed and written to a slow disk


def _mib(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB"


def explain_memory(
    holders: dict[str, int],
    ring_bytes: int,
    batch_bytes: int,
    parameter_bytes: int,
    copy_bytes: int,
) -> str:
    """Returns a sentence on the memory that is allocated at the start.

    Args:
      holders: number of copies of the parameters, by holder.
      copy_bytes: of the copy of the learner's state; 0 if there is none.
    """
    copy = f" The copy of the learner's state takes {_mib(copy_bytes)}."
    return (
        f"Memory: {_mib(ring_bytes)} of trajectory rings, {_mib(batch_bytes)} per"
        f" staging batch. The parameters are {_mib(parameter_bytes)};"
        f" {sum(holders.values())} copies:"
        f" {', '.join(f'{count} {name}' for name, count in holders.items())}."
        f"{copy if copy_bytes else ''}"
    )


def explain_replay(
    capacity: int, num_bytes: int, saved: bool, deadline_secs: float
) -> str:
    """Returns a sentence on the size of the replay; "" without replay.

    A second sentence warns if the stop leaves too little time to write it. The first
    half of a stop is for learning the remaining trajectories.
    """
    if not capacity:
        return ""
    text = f"Replay: up to {capacity:,} trajectories, in {_mib(num_bytes)}."
    seconds = _SAVE_SECS * num_bytes / 2**30
    if saved and seconds > deadline_secs / 2.0:
        text += (
            f" A checkpoint of it may take {seconds:,.0f} s, but shutdown.deadline_secs"
            f" ({deadline_secs:g}) leaves {deadline_secs / 2.0:g} for the last one. Set"
            f" config.shutdown.deadline_secs={2.0 * seconds:.0f}, or"
            " config.replay.save=False."
        )
    return text
