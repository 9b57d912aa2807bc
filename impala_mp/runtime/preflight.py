"""Runs every check of a training, and reports what would fail; trains nothing."""

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

from impala_mp import errors
from impala_mp.algorithms import cuda
from impala_mp.config import container_limits, derived, user_code, validation
from impala_mp.environments import checker
from impala_mp.networks import description
from impala_mp.runtime import (
    allocation,
    cluster_check,
    program,
    resources,
    warm_start,
)
from impala_mp.storage import workdir
from impala_mp.transport import shared as shared_lib, shared_memory, slot_wire
from impala_mp.workers import builders, learner, learner_process

_MIB = 2**20
_SPARE_MIB = 100  # of disk, for metrics and logs
_COPIES = 3  # of the parameters in a checkpoint: values and Adam's two moments


class _Report:
    """Printer of findings, one per line."""

    def __init__(self) -> None:
        self.failed = False

    def add(self, verdict: str, subject: str, text: str) -> None:
        self.failed = self.failed or verdict == checker.FAIL
        print(f"{verdict:<8} {subject:<17} {text}", flush=True)

    def run(self, subject: str, function: Callable[..., Any], *args: Any) -> Any:
        """Returns the result of `function`; an exception becomes a FAIL and None."""
        try:
            return function(*args)
        except errors.BadInput as error:
            self.add(checker.FAIL, subject, str(error))
        except Exception as error:  # from the user's network, the driver ...
            self.add(checker.FAIL, subject, user_code.explain(error))
        return None


def check(
    config: Any, path: str | None, changes: Sequence[str] = (), start_from: str = ""
) -> bool:
    """Prints a report on a training in the folder `path`; returns False on a FAIL.

    `changes` and `start_from` are those of `program.train`.

    Raises:
      BadInput: the config itself is not valid.
    """
    num_cores = container_limits.num_cores()
    live = validation.validate(config, num_cores)
    report = _Report()
    folder = workdir.Workdir(path) if path else None
    for name in ("learner", "inference"):
        field = f"{name}.device"
        report.run(field, _check_device, report, field, config[name])
    for finding in checker.check(config):
        report.add(*finding)
    if report.failed:
        report.add(checker.WARNING, "the rest", "skipped until this is fixed.")
        return False
    environments = report.run("evaluation", program.probe, config)
    if not environments:
        return False
    stored = folder.stored() if folder else None
    made = report.run(
        "network", program.prepare, config, live, environments, num_cores, stored
    )
    if not made:
        return False
    policies, chosen = made
    _report_policies(report, config, policies)
    names = [each.name for each in policies]
    report.run("cores", _check_cores, report, config, num_cores, names, chosen)
    if config.cluster.hosts:
        report.run("cluster", _check_cluster, report, config, num_cores, policies)
    if report.failed:
        return False
    if folder:
        parts = (report, config, folder, names, changes)
        report.run("workdir", _check_workdir, *parts)
    if start_from:
        parts = (start_from, folder, config, policies)
        for start in report.run("start_from", warm_start.read, *parts) or []:
            for text in warm_start.sentences(start):
                report.add(checker.OK, "start_from", text)
    seats = allocation.make_topology(config, num_cores, len(policies))
    text = report.run("file descriptors", resources.check_descriptors, config, seats)
    if text:
        report.add(checker.OK, "file descriptors", text)
    needed = report.run("memory", allocation.check_memory, policies, num_cores)
    if needed:
        _report_memory(report, needed)
        saved = sum(map(_checkpoint_bytes, policies))
        _check_disk(report, config.checkpoint.keep_last + 1, saved, folder)
    if not report.failed:
        report.run("a batch", _learn, report, config, policies, num_cores)
    return not report.failed


def _report_policies(
    report: _Report, config: Any, policies: Sequence[allocation.Policy]
) -> None:
    """Checks the devices that policies have for themselves, and describes each."""
    for each in policies:
        if each.config.learner.device != config.learner.device:
            field = f"policies.{each.name}.learner.device"
            report.run(field, _check_device, report, field, each.config.learner)
        for line in description.describe(each.config, each.environment):
            subject = f"{each.name} {line.subject}".strip()
            report.add(checker.OK, "in and out", f"{subject}: {line.text}")


def _check_cluster(
    report: _Report,
    config: Any,
    num_cores: int,
    policies: Sequence[allocation.Policy],
) -> None:
    """Checks the cluster, and what each of its nodes has."""
    for text in cluster_check.check(config, num_cores):
        report.add(checker.OK, "cluster", text)
    facts = allocation.facts_of_all(policies)
    for text, is_sound in cluster_check.check_nodes(config, facts):
        report.add(checker.OK if is_sound else checker.FAIL, "cluster", text)


def _checkpoint_bytes(policy: allocation.Policy) -> int:
    config, slots = policy.config, policy.layouts()
    saved = _COPIES * slots.num_bytes
    if config.replay.save:
        saved += allocation.replay_size(config, slots.batch)[1]
    return saved


def _check_device(report: _Report, field: str, settings: Any) -> None:
    device = settings.device
    resources.check_device(field, device)
    if not device.startswith("cuda"):
        report.add(checker.OK, field, device)
        return
    name = torch.cuda.get_device_name(device)
    used = settings.get("mode", "server") == "server"  # always by the learner
    if used and settings.precision == "bfloat16":
        with torch.cuda.device(device):
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if not supported:
            text = (
                f"{device} ({name}) does not compute bfloat16. Set"
                f" config.{field.split('.')[-2]}.precision=float32."
            )
            report.add(checker.FAIL, field, text)
            return
    report.add(checker.OK, field, f"{device} is available: {name}.")


def _check_cores(
    report: _Report,
    config: Any,
    num_cores: int,
    names: list[str],
    chosen: list[str],
) -> None:
    """Checks the placement of policies; `chosen` are sentences on automatic fields."""
    count = derived.num_actors(config.actors, num_cores)
    threads = derived.learner_threads(config, num_cores)
    cores = container_limits.cores_to_bind()
    serving = derived.server_threads(config.inference)
    learners = derived.num_learners(config)
    plan = resources.plan(
        cores, count, config.actors.threads, threads, serving, learners
    )
    explained = ""  # in lockstep one process does all
    if config.runtime.mode == "processes":
        explained = resources.explain_cores(plan, threads, serving)
        if plan.learners[0]:
            explained = f"{explained.rstrip('.')}, unless other runs have them."
    shares = resources.explain_ranks(config)
    seats = allocation.make_topology(config, num_cores, len(names))
    processes = resources.explain_processes(seats, names)
    sentences = [f"{num_cores} available.", explained, shares, processes, *chosen]
    text = " ".join(filter(None, sentences))
    if derived.num_threads(config, num_cores) > 2 * num_cores:
        text += " There are over twice as many threads. Set config.actors.count=auto."
        report.add(checker.WARNING, "cores", text)
    else:
        report.add(checker.OK, "cores", text)


def _check_workdir(
    report: _Report,
    config: Any,
    folder: workdir.Workdir,
    names: list[str],
    changes: Sequence[str],
) -> None:
    """Checks the folder as a training does, but creates nothing."""
    sentences = folder.check(config, changes)
    folder.check_unused()
    program.check_checkpoints(folder, config, names, sentences.append)
    there = "contains a run." if folder.stored() else "free."
    report.add(checker.OK, "workdir", " ".join([there, *sentences]))


def _report_memory(report: _Report, num_bytes: int) -> None:
    """Reports the memory; `allocation.check_memory` has found it sufficient."""
    needed = num_bytes / _MIB
    available = shared_memory.available_bytes() / _MIB
    text = (
        f"{needed:,.0f} MiB for trajectories and parameters, {available:,.0f} MiB are"
        " available. Each process takes about 200 MiB in addition."
    )
    report.add(checker.OK, "memory", text)


def _check_disk(
    report: _Report, kept: int, num_bytes: int, folder: workdir.Workdir | None
) -> None:
    """Compares the free disk with `kept` checkpoints of `num_bytes` each."""
    size = num_bytes / _MIB
    text = f"{kept} checkpoints of {size:,.1f} MiB take {kept * size:,.1f} MiB"
    if folder is None:
        report.add(checker.OK, "disk", f"{text}. Set --workdir to check the space.")
        return
    there = folder.path
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize / _MIB
    text += f", {free:,.0f} MiB are free at {there}."
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} is not writable. Choose another --workdir."
        report.add(checker.FAIL, "disk", text)
    elif free < kept * size:
        text += " Choose another --workdir, or lower config.checkpoint.keep_last."
        report.add(checker.FAIL, "disk", text)
    elif free < kept * size + _SPARE_MIB:
        text += " Little space is left for metrics and logs. Choose another --workdir."
        report.add(checker.WARNING, "disk", text)
    else:
        report.add(checker.OK, "disk", text)


def _learn(
    report: _Report,
    config: Any,
    policies: Sequence[allocation.Policy],
    num_cores: int,
) -> None:
    """Plays one batch with fresh parameters, through real slots, and learns it.

    Of several ranks, it is the share of one.
    """
    quiet = [each._replace(config=_alone(each.config)) for each in policies]
    with tempfile.TemporaryDirectory() as folder:  # for a league's first snapshot
        place = os.path.join(folder, "checkpoints")
        shared = allocation.allocate(quiet, place, num_cores, config)
        try:
            records = _update(shared)
            for each in shared if config.cluster.hosts else ():
                _report_wire(report, each)
        finally:
            allocation.release(shared)
    for each, metrics in zip(quiet, records, strict=True):
        _report_update(report, each, metrics)


def _report_wire(report: _Report, shared: shared_lib.Shared) -> None:
    """Reports the size of a policy's slot on its way from an actor host."""
    compression = shared.whole.cluster.compression
    packer = slot_wire.Packer(compression)
    packer.pack(shared.rings.ring(0).slots[0])
    raw, wire = packer.raw_bytes, packer.wire_bytes
    what = f"a slot of a new policy{f' {shared.policy!r}' if shared.policy else ''}"
    text = f"{what}, {raw / 1e3:,.1f} kB, is sent as it is."
    if packer.compresses:
        text = (
            f"{what}, {raw / 1e3:,.1f} kB, is {wire / 1e3:,.1f} kB on"
            f" the wire: compression {raw / wire:.1f}."
        )
        if compression == "auto" and raw < slot_wire.WORTH * wire:
            text += " Hosts stop compressing after the first slots."
    report.add(checker.OK, "cluster", text)


def _alone(config: Any) -> Any:
    """Returns a config that one process learns from, at once and without files."""
    ranks = config.learner.ranks
    config = derived.of_rank(config).copy_and_resolve_references()
    config.replay.start = 0
    config.learner.ranks, config.actors.count = 1, config.actors.count // ranks
    config.health.max_crash_files, config.logging.episodes = 0, False
    return config


def _report_update(
    report: _Report, policy: allocation.Policy, metrics: dict[str, float]
) -> None:
    config, subject = policy.config, f"a batch {policy.name}".rstrip()
    bad = [
        name
        for name in learner.metric_names(config)
        if not math.isfinite(metrics[name])
    ]
    if bad or metrics["health/updates_skipped"]:
        text = (
            f"its update is not finite ({', '.join(bad) or 'the gradient'}). Check"
            " the network, config.optimizer and config.loss."
        )
        report.add(checker.FAIL, subject, text)
        return
    text = (
        f"{config.batch_size} trajectories of {config.unroll_length} steps learned:"
        f" loss {metrics['loss/total']:.4g}, gradient norm"
        f" {metrics['loss/gradient_norm']:.4g}."
    )
    report.add(checker.OK, subject, text)


def _update(policies: Sequence[shared_lib.Shared]) -> list[dict[str, float]]:
    """Returns the record of each policy after one update."""
    shared = policies[0]
    config = shared.config
    torch.set_num_threads(shared.learner_threads)
    loops = []
    for each in policies:
        cuda.take_device(each.config.learner.device)
        seat = shared.topology.learner(each.number)
        loops.append(builders.make_learner(seat, each))
    learner_process.restore(loops, print)
    seats = iter(shared.topology.actors)
    while not all([loop.ready() for loop in loops]):
        with contextlib.closing(builders.make_actor(next(seats), 0, policies)) as actor:
            actor.fetch()
            for _ in range(config.actors.slots):
                actor.unroll()
    for each, loop in zip(policies, loops, strict=True):
        cuda.take_device(each.config.learner.device)
        loop.step()
        loop.write_record()
    return [each.learner_record.read()[-1] for each in policies]
