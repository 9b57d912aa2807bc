"""Subject `ranks`: what the exchange between two learner ranks takes of an update."""

import time
from typing import Any

import torch

from benchmarks import children, context as context_lib
from impala_mp import nest
from impala_mp.algorithms import base, replay_correction
from impala_mp.transport import control_block, ranks
from impala_mp.workers import learner

_RANKS, _WARM_UP, _UPDATES = 2, 2, 8
_LOOK_SECS = 0.2  # between two looks at the ranks, while they are silent
_PARTS = ("update", "sum", "wait")  # seconds a rank spends in each, an update


class _TimedGroup(ranks.Group):
    """Group that measures its sums apart from the wait for the other ranks."""

    sum_secs = wait_secs = 0.0

    def sum(self, tensor: torch.Tensor) -> None:
        start = time.perf_counter()
        self.exchange([0.0])
        middle = time.perf_counter()
        super().sum(tensor)
        self.wait_secs += middle - start
        self.sum_secs += time.perf_counter() - middle


def _learn(
    context: context_lib.Context,
    port: int,
    rank: int,
    row: control_block.ProcessRow,
    answers: Any,
) -> None:
    """Makes updates of a resident batch; sends the seconds of each part."""
    config = context.config
    torch.set_num_threads(1)
    group = _TimedGroup(port, "0/0", rank, _RANKS, row)
    made = learner.Learner(config, context.agent(), group)
    batch = nest.map_structure(torch.clone, context.batch(config.batch_size))
    live, sample = base.live_from_config(config), replay_correction.all_fresh(config)
    for number in range(_WARM_UP + context.options.repeats * _UPDATES):
        group.sum_secs = group.wait_secs = 0.0
        start = time.perf_counter()
        made.update(batch, live, sample)
        whole = time.perf_counter() - start
        if number >= _WARM_UP and rank == 0:
            answers.send((whole, group.sum_secs, group.wait_secs))


def learner_ranks(
    context: context_lib.Context,
) -> tuple[context_lib.Rows, context_lib.Ratios]:
    """Time of an update of two ranks on the CPU, each with a batch of the config.

    The wait for the other rank is apart: it is that of an update on a busy machine.
    """
    meeting, control = ranks.Rendezvous(), control_block.ControlBlock(_RANKS)
    receiver, sender = children.FORK.Pipe(duplex=False)
    processes = [
        children.start(_learn, context, meeting.port, rank, control.row(rank), sender)
        for rank in range(_RANKS)
    ]
    found: list[tuple[float, ...]] = []
    while len(found) < context.options.repeats * _UPDATES:
        if receiver.poll(_LOOK_SECS):
            found.append(receiver.recv())
        else:
            children.check(processes)
    for process in processes:
        process.join()
    columns = zip(*found, strict=True)
    rows = {
        name: context_lib.scaled(context_lib.summary(list(secs), "s"), 1e3, "ms")
        for name, secs in zip(_PARTS, columns, strict=True)
    }
    share = rows["sum"]["median"] / rows["update"]["median"]
    return rows, {"ranks_sum_over_update": share}
