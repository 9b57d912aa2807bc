"""Starts a new run with the weights and statistics of another, as checkpoint 0.

A new run needs nothing else. Its learner, a resume and an evaluation read checkpoint 0
like any other; the optimizer, the counters and the target network start fresh.
"""

import copy
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from impala_mp import errors
from impala_mp.config import fields
from impala_mp.networks import agent, popart
from impala_mp.storage import checkpoint, files, workdir
from impala_mp.workers import learner

_LINEAGE = "lineage.json"
_COPIED = "copied"
_VALUES = ("baseline", "baseline.output")  # modules that PopArt's head may be


class Source(NamedTuple):
    """A checkpoint of another run."""

    run: str  # its folder
    checkpoint: str  # name of its folder in checkpoints/
    learner: dict[str, Any]  # as in `Learner.state_dict`


class WarmStart(NamedTuple):
    """Parts of a source that fit an agent."""

    source: Source
    arrays: dict[str, torch.Tensor]  # that fit
    popart_batches: torch.Tensor | None  # None: PopArt begins
    fates: dict[str, str]  # of each array, there and here


def read(
    argument: str,
    folder: workdir.Workdir | None,
    policy: agent.Agent,
    report: Callable[[str], None] = print,
) -> WarmStart | None:
    """Reads the source that --start_from names; writes nothing.

    Args:
      argument: DIR, DIR:newest, DIR:best or DIR:UPDATE; "" for none.
      folder: of the new run; None: a folder that is not there yet.
      policy: the new run's agent.
      report: called with sentences for the user.

    Returns:
      None without a source, or if the run in the folder has begun so.

    Raises:
      BadInput: there is no such checkpoint, nothing of it fits, or the folder has a run
        that began otherwise.
    """
    begun = folder and workdir.newest_update(folder.path) >= 0
    if not argument:
        if folder and not begun and read_lineage(folder.path):
            raise errors.BadInput(
                f"the run in {folder.path} was killed before it had its first weights."
                " Name --start_from again."
            )
        return None
    run, name = _split(argument)
    if folder and begun:
        _check_begun(folder.path, run, name)
        report(f"{folder.path} began from {run}. It resumes with what it has learned.")
        return None
    source = _load(run, name, report)
    start = _compare(source, policy)
    if not start.arrays:
        raise errors.BadInput(
            f"--start_from={argument}: no array fits. {_unlike(start.fates)[0]}."
        )
    return start


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


def _load(run: str, name: str, report: Callable[[str], None]) -> Source:
    workdir.read_config(run)  # a sentence if this is no run
    folder = os.path.join(run, "checkpoints")
    there = checkpoint.names(folder)
    if name not in there:
        raise errors.BadInput(
            f"--start_from: {run} has no checkpoint {name}. It has"
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
        return Source(run, str(learned["updates"]), learned)
    except checkpoint.Damaged as error:
        raise errors.BadInput(f"--start_from: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.BadInput(
            f"--start_from: the checkpoint in {run} has no state of a learner."
        ) from error


def _compare(source: Source, policy: agent.Agent) -> WarmStart:
    """Returns what fits. A module is taken as a whole, or not at all."""
    here = policy.network.state_dict()
    with_popart = popart.head(policy.network) is not None
    there, batches, head = _values(source.learner, with_popart)
    fates = {name: _fate(there.get(name), here.get(name)) for name in {**here, **there}}
    spoilt = {_module(name) for name, fate in fates.items() if fate != _COPIED}
    for name, fate in fates.items():
        if fate == _COPIED and _module(name) in spoilt:
            fates[name] = "left out with its module"
    arrays = {name: there[name] for name, fate in fates.items() if fate == _COPIED}
    return WarmStart(source, arrays, None if head in spoilt else batches, fates)


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
    source = start.source
    return [
        f"Starting from {source.run}, update {source.learner['updates']:,}: copied"
        f" {', '.join(start.arrays)}.",
        *(f"Not copied: {each}." for each in _unlike(start.fates)),
    ]


def _unlike(fates: dict[str, str]) -> list[str]:
    return [f"{name} ({fate})" for name, fate in fates.items() if fate != _COPIED]


def write(
    start: WarmStart, folder: workdir.Workdir, config: Any, policy: agent.Agent
) -> list[str]:
    """Writes the lineage and checkpoint 0 of the new run; returns what was copied.

    Raises:
      BadInput: they cannot be written.
    """
    policy = copy.deepcopy(policy)
    policy.network.load_state_dict(start.arrays, strict=False)
    on_cpu = config.copy_and_resolve_references()
    on_cpu.learner.device, on_cpu.learner.cuda_graph = "cpu", False
    # Made after the weights: IMPACT's target network begins as a copy of them.
    state = learner.Learner(on_cpu, policy).state_dict()
    if start.popart_batches is not None:
        state["popart_batches"] = start.popart_batches.clone()
    source = start.source
    lineage = {
        "time": time.time(),
        "run": source.run,
        "checkpoint": source.checkpoint,
        "update": source.learner["updates"],
        "agent_steps": source.learner["agent_steps"],
        "arrays": start.fates,
        "before": read_lineage(source.run),
    }
    text = json.dumps(lineage, indent=1) + "\n"
    saved = {"learner": state, "config": fields.to_json(config)}
    try:
        files.write_atomically(os.path.join(folder.path, _LINEAGE), text)
        checkpoint.save(folder.checkpoints, 0, saved)
    except OSError as error:
        raise errors.BadInput(
            f"the first checkpoint in {folder.path} cannot be written ({error})."
            " Choose another --workdir."
        ) from error
    return sentences(start)


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
