"""Loops of the learner's ranks: they agree, and then make the update together.

Rank 0 leads: it has a whole learner loop, which publishes, saves and reports for all.
The others follow: they learn their shares of the batches, and write nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from impala_mp.algorithms import base, replay
from impala_mp.transport import (
    control_block,
    name_tables,
    parameter_store,
    ranks,
)
from impala_mp.workers import (
    accounting,
    agreement,
    batcher,
    ended_games,
    learner,
    learner_loop,
    learner_metrics,
    nonfinite,
    policy_lag,
)

_WAIT_SECS = 0.2  # longest wait for a batch before the others learn of it


class Follower:
    """Loop of a rank that follows."""

    def __init__(
        self,
        config: Any,
        group: ranks.Group,
        the_learner: learner.Learner,
        the_batcher: batcher.Batcher,
        the_accounts: accounting.Accounts,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        games: ended_games.EndedGames,
        guard: nonfinite.Guard,
        store: parameter_store.ParameterStore,
        the_replay: replay.Replay | None = None,
    ) -> None:
        """`config` is that of the rank; `the_accounts` are of its rings."""
        self._config, self.group = config, group
        self._learner, self._batcher = the_learner, the_batcher
        self._accounts, self.control, self.row = the_accounts, control, row
        self.bell = the_batcher.bell
        self._finder, self._guard, self._store = games, guard, store
        self._replay = the_replay
        self._refresher = replay.Refresher(the_replay) if the_replay else None
        self._lags = policy_lag.Lags()
        self._games: list[list[float]] = []  # of the last batch
        self.waited_secs = 0.0

    def ready(self) -> bool:
        return self._batcher.ready()

    def is_over(self, end: float) -> bool:
        return False  # rank 0 knows

    def waited(self, secs: float) -> None:
        """Rank 0 reports the time that ranks wait for data or for each other."""

    def conclude(self) -> None:
        """Checks the last update; rank 0 writes the last checkpoint."""
        self._guard.conclude()

    def words(self, is_ready: bool, is_over: bool) -> agreement.Words:
        return _words(
            self, self._learner, is_ready, is_over, len(self._games), self._lags
        )._replace(**self._accounts.counts())

    def take(self, agreed: agreement.Agreed) -> None:
        exchange_games(self.group, self._games, agreed.num_games)
        self._games = []

    def step(self, live: base.Live) -> None:
        self.row.beat(control_block.State.RUNNING)
        if self._replay:
            total = self._config.total_agent_steps
            self._replay.anneal(self._learner.agent_steps / total)
        batch = self._batcher.take()
        versions = batch.parameter_version[:, : batch.num_fresh]
        mixed = self._lags.add(self._store.latest, versions)
        if mixed:
            print(f"More than one version acted in {mixed} unrolls.", flush=True)
        self._guard.before()
        metrics = self._learner.update(batch.trajectory, live, batch.sample)
        if self._refresher:
            self._refresher.add(batch.draw, self._learner.priorities)
        self._guard.after(batch, metrics, live)
        self._accounts.learned(batch.num_fresh)
        self._games = ended_games.rows(self._finder.find(batch))
        self.row.add("finished", 1)

    def start(self, report: Callable[[str], None]) -> None:
        """Begins with the state of rank 0."""
        self._accounts.discard_lost()
        agreement.agree(self.group, self.words(False, False))
        _share(self.group, self._learner)


class Leader:
    """Loop of rank 0."""

    def __init__(
        self,
        loop: learner_loop.LearnerLoop,
        group: ranks.Group,
        the_learner: learner.Learner,
        the_accounts: accounting.SharedAccounts,
        names: Sequence[name_tables.NameTable],
    ) -> None:
        """`names` are those of the columns of games, by rank."""
        self.loop, self.group = loop, group
        self._learner, self._accounts, self._names = the_learner, the_accounts, names
        self.control, self.row, self.bell = loop.control, loop.row, loop.bell
        self.waited_secs = 0.0
        self._kept_update = -1
        self._since = time.monotonic()  # when the waits below began
        self._waits = [0.0] * group.size  # of each rank until the last record
        self._newest: agreement.Agreed | None = None
        loop.rank_metrics = self._metrics

    def ready(self) -> bool:
        return self.loop.ready()

    def is_over(self, end: float) -> bool:
        return self.loop.finished or time.monotonic() >= end

    def waited(self, secs: float) -> None:
        self.loop.updates.waited(secs)

    def conclude(self) -> None:
        self.loop.conclude()

    def words(self, is_ready: bool, is_over: bool) -> agreement.Words:
        own = _words(
            self, self._learner, is_ready, is_over, 0, self.loop.updates.lags
        )._replace(**self._accounts.own())
        live = (self.control.get(name) for name in base.Live._fields)
        return own._replace(live=tuple(live))

    def take(self, agreed: agreement.Agreed) -> None:
        self._accounts.agreed, self._newest = agreed.counts(), agreed
        found = exchange_games(self.group, [], agreed.num_games)
        for rank, rows in enumerate(found):
            rows = rows[: int(agreed.ranks[rank].num_games)]
            if rows:
                self.loop.add_games(rows, self._names[rank].names())
        if self._learner.updates != self._kept_update:
            self.loop.keep()
            self._kept_update = self._learner.updates
        if self.loop.record_is_due():
            self.loop.write_record()
        if self.loop.save_is_due():
            self.loop.save()

    def step(self, live: base.Live) -> None:
        self.loop.step(live)

    def _metrics(self) -> dict[str, float]:
        """Returns the metrics of the ranks since the last record."""
        found = dict.fromkeys(learner_metrics.OF_RANKS, math.nan)
        if self._newest is None:
            return found
        now = [each.waited_secs for each in self._newest.ranks]
        secs, self._since = time.monotonic() - self._since, time.monotonic()
        shares = [(b - a) / secs for a, b in zip(self._waits, now, strict=True)]
        self._waits = now
        found["ranks/waited_share"] = min(1.0, max(shares))
        found["ranks/last"] = shares.index(max(shares))
        found["health/mixed_unrolls"] = self._newest.total("mixed_unrolls")
        return found

    def start(self, report: Callable[[str], None]) -> None:
        """Resumes, and gives its state to the others."""
        self._accounts.discard_lost()
        agreed = agreement.agree(self.group, self.words(False, False))
        self._accounts.agreed = agreed.counts()
        self.loop.restore(report)
        _share(self.group, self._learner)


def _words(
    member: Leader | Follower,
    the_learner: learner.Learner,
    is_ready: bool,
    is_over: bool,
    num_games: int,
    lags: policy_lag.Lags,
) -> agreement.Words:
    """Returns the words of one rank without its counts."""
    updates = the_learner.updates
    return agreement.Words(
        is_ready,
        member.control.stopping,
        is_over,
        updates,
        agreement.checksum(the_learner.parameters.flat, updates),
        num_games,
        lags.mixed_unrolls,
        member.waited_secs,
        *(0.0,) * 4,
        (0.0,) * len(base.Live._fields),
    )


def _share(group: ranks.Group, the_learner: learner.Learner) -> None:
    """Gives all ranks the learner's state of rank 0."""
    for tensor in the_learner.state_tensors.values():
        group.broadcast(tensor)
    progress = [the_learner.updates, the_learner.agent_steps]
    updates, agent_steps = group.exchange(progress)[0]
    the_learner.updates, the_learner.agent_steps = int(updates), int(agent_steps)


def exchange_games(
    group: ranks.Group, games: list[list[float]], most: int
) -> list[list[list[float]]]:
    """Returns the games of all ranks, by rank, each list of length `most`."""
    if not most:
        return []
    width = ended_games.ROW
    padded = [*games, *[[math.nan] * width] * (most - len(games))]
    found = group.exchange([value for row in padded for value in row])
    return [[own[i * width :][:width] for i in range(most)] for own in found]


def run(
    member: Leader | Follower,
    deadline_secs: float,
    each_turn: Callable[[], None] = lambda: None,
) -> None:
    """Learns until rank 0 is finished, or the run is stopped.

    Args:
      deadline_secs: from the request to stop; half of it is for what is in the rings.
      each_turn: called after updates.

    Raises:
      Mismatch: the ranks are not alike.
      NotSaved: the last checkpoint could not be written.
    """
    end, stopping = math.inf, False
    while True:
        is_ready = _wait_for_data(member, 0.0 if stopping else _WAIT_SECS)
        agreed = _agree(member, is_ready, member.is_over(end))
        member.take(agreed)
        if agreed.is_over or (stopping and not agreed.goes):
            break
        if agreed.stops and not stopping:
            stopping, end = True, time.monotonic() + deadline_secs / 2.0
        if agreed.goes:
            member.step(agreed.live)
            each_turn()
    member.row.beat(control_block.State.STOPPING)
    member.conclude()


def _agree(
    member: Leader | Follower, is_ready: bool, is_over: bool
) -> agreement.Agreed:
    """Agrees with the other ranks, and checks that they are alike."""
    start = time.perf_counter()
    agreed = agreement.agree(member.group, member.words(is_ready, is_over))
    member.waited(time.perf_counter() - start)
    try:
        agreed.check()
    except agreement.Mismatch:
        if not member.group.rank:
            member.control.books[0].add("rank_mismatches", 1)
        raise
    return agreed


def _wait_for_data(member: Leader | Follower, timeout_secs: float) -> bool:
    """Waits for a batch, for a moment; returns whether it is there."""
    member.row.beat(control_block.State.WAITING_FOR_DATA)
    if member.ready():
        return True
    start, left = time.perf_counter(), timeout_secs
    while left > 0.0 and not member.control.stopping and not member.ready():
        member.bell.wait(left)
        left = start + timeout_secs - time.perf_counter()
    waited = time.perf_counter() - start
    member.waited_secs += waited
    member.waited(waited)
    return member.ready()
