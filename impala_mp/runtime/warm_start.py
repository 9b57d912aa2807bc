"""Starts a new run with the weights and statistics of another, as checkpoint 0.

A new run needs nothing else. Its learner, a resume and an evaluation read checkpoint 0
like any other; the optimizer, the counters and the target network start fresh.

Each of several policies starts from the policy of its name. A run of a single policy
starts all of them.
"""

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from impala_mp import errors
from impala_mp.config import fields
from impala_mp.networks import popart
from impala_mp.runtime import allocation
from impala_mp.storage import checkpoint, files, workdir
from impala_mp.workers import learner

_LINEAGE = "lineage.json"
_COPIED = "copied"
_VALUES = ("baseline", "baseline.output")  # modules that PopArt's head may be


class Source(NamedTuple):
    """A checkpoint of another run."""

    run: str  # its folder
    policy: str  # "" for a single one
    checkpoint: str  # name of its folder in checkpoints/
    learner: dict[str, Any]  # as in `Learner.state_dict`


class WarmStart(NamedTuple):
    """Parts of a source that fit the agent of one policy."""

    policy: str  # "" for a single one
    source: Source
    arrays: dict[str, torch.Tensor]  # that fit
    popart_batches: torch.Tensor | None  # None: PopArt begins
    fates: dict[str, str]  # of each array, there and here


def read(
    argument: str,
    folder: workdir.Workdir | None,
    config: Any,
    policies: Sequence[allocation.Policy],
    report: Callable[[str], None] = print,
) -> list[WarmStart]:
    """Reads the source that --start_from names; writes nothing.

    Args:
      argument: DIR, DIR:newest, DIR:best or DIR:UPDATE; "" for none.
      folder: of the new run; None: a folder that is not there yet.
      config: of the new run.
      policies: of the new run.
      report: called with sentences for the user.

    Returns:
      A start for each policy; none without a source, or if the run in the folder has
      begun so.

    Raises:
      BadInput: there is no such checkpoint, nothing of it fits, or the folder has a run
        that began otherwise.
    """
    names = [each.name for each in policies]
    begun = folder and _has_begun(folder, names)
    if not argument:
        if folder and not begun and read_lineage(folder.path):
            raise errors.BadInput(
                f"the run in {folder.path} was killed before it had its first weights."
                " Name --start_from again."
            )
        return []
    run, name = _split(argument)
    if folder and begun:
        _check_begun(folder.path, run, name)
        report(f"{folder.path} began from {run}. It resumes with what it has learned.")
        return []
    if config.population.size:
        raise errors.BadInput(
            f"start_from ({argument!r}) does not go with a population, whose"
            f" {len(names)} members begin with different weights. Leave out"
            " --start_from."
        )
    starts = []
    for each, theirs in zip(policies, _matched(run, names), strict=True):
        start = _compare(_load(run, theirs, name, report), each)
        starts.append(start)
        if not start.arrays:
            whose = f" of policy {each.name}" if each.name else ""
            raise errors.BadInput(
                f"--start_from={argument}: no array{whose} fits."
                f" {_unlike(start.fates)[0]}."
            )
    return starts


def _has_begun(folder: workdir.Workdir, policies: Sequence[str]) -> bool:
    """Returns whether the run in a folder has the first checkpoint of each policy.

    A run without a source has begun with any.
    """
    updates = [files.newest_update(folder.checkpoints_of(name)) for name in policies]
    if not read_lineage(folder.path):
        return max(updates) >= 0
    return max(updates) > 0 or min(updates) == 0


def _matched(run: str, policies: Sequence[str]) -> list[str]:
    """Returns the policy of the run that each of `policies` starts from.

    Raises:
      BadInput: one has none.
    """
    workdir.read_config(run)  # a sentence if this is no run
    there = workdir.Workdir(run).names_of_policies()
    if there == ("",):
        return ["" for _ in policies]
    missing = [name for name in policies if name not in there]
    if missing == [""]:
        raise errors.BadInput(
            f"--start_from: {run} has the policies {', '.join(there)}, and a single"
            " policy plays here. Set config.environment.sharing or"
            " config.environment.policies as there, or leave out --start_from."
        )
    if missing:
        raise errors.BadInput(
            f"--start_from: {run} has the policies {', '.join(there)}, and none for"
            f" {', '.join(missing)} here. Name the policies in"
            " config.environment.policies as there, or leave out --start_from."
        )
    return list(policies)


def _split(argument: str) -> tuple[str, str]:
    """Returns the folder of the run, and the name of its checkpoint."""
    plain, _, name = argument.rpartition(":")
    if plain and not os.path.isdir(argument):
        if name not in (checkpoint.NEWEST, checkpoint.BEST) and not name.isdecimal():
            raise errors.BadInput(
                f"--start_from={argument}: {name!r} is no checkpoint. Use newest, best"
                " or the number of an update."
            )
        return os.path.abspath(plain), name
    return os.path.abspath(argument), checkpoint.NEWEST


def _load(run: str, policy: str, name: str, report: Callable[[str], None]) -> Source:
    folder = workdir.Workdir(run).checkpoints_of(policy)
    there = checkpoint.names(folder)
    if name not in there:
        whose = f" of policy {policy}" if policy else ""
        raise errors.BadInput(
            f"--start_from: {run} has no checkpoint {name}{whose}. It has"
            f" {', '.join(there) or 'none'}."
        )
    try:
        state: Any = (
            checkpoint.load_newest(folder, report)
            if name == checkpoint.NEWEST
            else checkpoint.load(os.path.join(folder, name))
        )
        learned = state["learner"]
        learned["parameters"].items()
        return Source(run, policy, str(learned["updates"]), learned)
    except checkpoint.Damaged as error:
        raise errors.BadInput(f"--start_from: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.BadInput(
            f"--start_from: the checkpoint in {run} has no state of a learner."
        ) from error


def _compare(source: Source, policy: allocation.Policy) -> WarmStart:
    """Returns what fits. A module is taken as a whole, or not at all."""
    network = policy.agent.network
    here = network.state_dict()
    with_popart = popart.head(network) is not None
    there, batches, head = _values(source.learner, with_popart)
    fates = {name: _fate(there.get(name), here.get(name)) for name in {**here, **there}}
    spoilt = {_module(name) for name, fate in fates.items() if fate != _COPIED}
    for name, fate in fates.items():
        if fate == _COPIED and _module(name) in spoilt:
            fates[name] = "left out with its module"
    arrays = {name: there[name] for name, fate in fates.items() if fate == _COPIED}
    popart_batches = None if head in spoilt else batches
    return WarmStart(policy.name, source, arrays, popart_batches, fates)


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _fate(there: torch.Tensor | None, here: torch.Tensor | None) -> str:
    if there is None or here is None:
        return "not there" if there is None else "not here"
    if there.shape != here.shape:
        return f"{list(there.shape)} there, {list(here.shape)} here"
    return _COPIED


def _values(
    learned: dict[str, Any], with_popart: bool
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None, str]:
    """Returns the arrays with a value head of this run's kind, and PopArt's batches.

    The last is the name of the head, "" if there is none.
    """
    arrays = dict(learned["parameters"])
    head = next((name for name in _VALUES if f"{name}.bias" in arrays), "")
    if not head:
        return arrays, None, ""
    mean, variance = (arrays.get(f"{head}.{x}") for x in ("mean", "variance"))
    if mean is None or variance is None:
        if with_popart:  # at scale 1, past the start: its values stay what they are
            arrays[f"{head}.mean"] = torch.zeros(1)
            arrays[f"{head}.variance"] = torch.ones(1)
        return arrays, torch.ones(1), head
    found = learned.get("popart_batches", torch.tensor(float(learned["updates"])))
    batches = found.expand_as(mean)
    if not with_popart:
        weight, bias = arrays[f"{head}.weight"], arrays[f"{head}.bias"]
        scale = variance.sqrt().clamp(popart.MIN_SCALE, popart.MAX_SCALE)
        each = len(bias) // len(mean)  # outputs of a task
        scale, mean = (x.repeat_interleave(each) for x in (scale, mean))
        arrays[f"{head}.weight"] = weight * scale.unsqueeze(-1)
        arrays[f"{head}.bias"] = bias * scale + mean
        del arrays[f"{head}.mean"], arrays[f"{head}.variance"]
    return arrays, batches, head


def sentences(start: WarmStart) -> list[str]:
    """Returns what was copied, and a sentence for each array that was not."""
    source, of = start.source, f"Policy {start.policy}: " if start.policy else ""
    theirs = f", policy {source.policy}" if source.policy else ""
    return [
        f"{of}Starting from {source.run}{theirs}, update"
        f" {source.learner['updates']:,}: copied {', '.join(start.arrays)}.",
        *(f"{of}Not copied: {each}." for each in _unlike(start.fates)),
    ]


def _unlike(fates: dict[str, str]) -> list[str]:
    return [f"{name} ({fate})" for name, fate in fates.items() if fate != _COPIED]


def write(
    starts: Sequence[WarmStart],
    folder: workdir.Workdir,
    policies: Sequence[allocation.Policy],
) -> list[str]:
    """Writes the lineage and the checkpoints 0 of a new run; returns what was copied.

    The lineage comes first: a run that is killed in between is not taken for a fresh
    one. All checkpoints are of one moment of the source.

    Raises:
      BadInput: they cannot be written.
    """
    text = json.dumps(_lineage(starts), indent=1) + "\n"
    try:
        files.write_atomically(os.path.join(folder.path, _LINEAGE), text)
        for start, each in zip(starts, policies, strict=True):
            place = folder.checkpoints_of(each.name)
            checkpoint.save(place, 0, _state(start, each), replace=True)
    except OSError as error:
        raise errors.BadInput(
            f"the first checkpoint in {folder.path} cannot be written ({error})."
            " Choose another --workdir."
        ) from error
    return [text for start in starts for text in sentences(start)]


def _state(start: WarmStart, policy: allocation.Policy) -> dict[str, Any]:
    """Returns checkpoint 0 of a policy."""
    own = copy.deepcopy(policy.agent)
    own.network.load_state_dict(start.arrays, strict=False)
    on_cpu = policy.config.copy_and_resolve_references()
    on_cpu.learner.device, on_cpu.learner.cuda_graph = "cpu", False
    # Made after the weights: IMPACT's target network begins as a copy of them.
    state = learner.Learner(on_cpu, own).state_dict()
    if start.popart_batches is not None:
        state["popart_batches"] = start.popart_batches.clone()
    return {"learner": state, "config": fields.to_json(policy.config)}


def _lineage(starts: Sequence[WarmStart]) -> dict[str, Any]:
    """Returns the lineage; of several policies of the source, the sums of counts."""
    sources = {each.source.policy: each.source for each in starts}
    checkpoints = {each.checkpoint for each in sources.values()}
    updates, steps = (
        sum(each.learner[name] for each in sources.values())
        for name in ("updates", "agent_steps")
    )
    run = starts[0].source.run
    return {
        "time": time.time(),
        "run": run,
        "checkpoint": checkpoints.pop() if len(checkpoints) == 1 else checkpoint.NEWEST,
        "update": updates,
        "agent_steps": steps,
        "arrays": {
            f"{each.policy}/{name}".removeprefix("/"): fate
            for each in starts
            for name, fate in each.fates.items()
        },
        "before": read_lineage(run),
    }


def read_lineage(run: str) -> dict[str, Any] | None:
    """Returns the lineage of a run, or None if it began with fresh weights.

    Raises:
      BadInput: it cannot be read.
    """
    path = os.path.join(run, _LINEAGE)
    if not os.path.lexists(path):
        return None
    try:
        found: dict[str, Any] = files.read_json(path)
        return found
    except (OSError, ValueError) as error:
        raise errors.BadInput(f"{path} cannot be read ({error}).") from error


def _check_begun(path: str, run: str, name: str) -> None:
    """Raises BadInput if the run in `path` did not begin with that checkpoint."""
    lineage = read_lineage(path)
    source = (lineage or {}).get("run"), (lineage or {}).get("checkpoint")
    if source[0] != run or (name.isdecimal() and source[1] != name):
        began = f"from {source[0]}:{source[1]}" if lineage else "with fresh weights"
        raise errors.BadInput(
            f"the run in {path} began {began}. Leave out --start_from to resume it, or"
            " choose another --workdir."
        )
