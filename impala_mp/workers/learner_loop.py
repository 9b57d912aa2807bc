"""Learner loop: update, publish, account, record, checkpoint."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from impala_mp import errors
from impala_mp.algorithms import base, cuda, replay
from impala_mp.config import fields, live_hyperparameters, schedules
from impala_mp.transport import (
    control_block,
    learner_memory,
    parameter_store,
    record_ring,
)
from impala_mp.workers import (
    accounting,
    batcher,
    checkpoint_writer,
    drift,
    game_log,
    learner,
    learner_metrics,
    learner_state,
    member,
    nonfinite,
    publisher,
    snapshots,
    stop_rules,
)


class NotSaved(errors.RunFailed):
    """The last checkpoint could not be written: some updates are lost."""


class LearnerLoop:
    """Loop of one learner. `step` is one update and everything that follows from it."""

    def __init__(
        self,
        config: Any,
        live: live_hyperparameters.LiveHyperparameters,
        the_learner: learner.Learner,
        the_batcher: batcher.Batcher,
        the_accounts: accounting.Accounts,
        num_actors: int,
        store: parameter_store.ParameterStore,
        control: control_block.ControlBlock,
        row: control_block.ProcessRow,
        the_record: record_ring.RecordRing,
        games: game_log.GameLog,
        the_snapshots: snapshots.Writer,
        folder: str,
        memory: learner_memory.LearnerMemory,
        the_replay: replay.Replay | None = None,
        policy: str = "",
        the_member: member.Member | None = None,
    ) -> None:
        """`folder` is that of checkpoints; `policy` is the name of one of several."""
        self.member = the_member
        self._config = config
        self._learner, self._batcher = the_learner, the_batcher
        self._accounts = the_accounts
        self.control = control
        self.row, self.bell = row, the_batcher.bell
        self._record, self._replay = the_record, the_replay
        in_step = config.runtime.mode == "lockstep"  # the run repeats itself
        self._refresher = replay.Refresher(the_replay, in_step) if the_replay else None
        flat, delay = the_learner.parameters.flat, config.actors.policy_delay
        self._publisher = publisher.Publisher(flat, store, delay, in_step)
        self.checkpoints = checkpoint_writer.CheckpointWriter(
            config.checkpoint, folder, control, row
        )
        crashes = os.path.join(os.path.dirname(folder), "crashes")
        self._guard = nonfinite.Guard(config, the_learner, crashes, policy)
        self._drift = drift.DriftDetector(
            the_learner,
            self._publisher.source,
            config.health.drift_interval,
            control,
            schedules.rungs(config.actors, num_actors),
        )
        self._schedules = live.scheduled()
        self._games, self._snapshots = games, the_snapshots
        self._stop = stop_rules.StopRules(config.stop)
        self.updates = learner_metrics.UpdateMeans(
            learner.metric_names(config), config.learner.device
        )
        line, skipped = self._publisher.delay_line, self.updates.skipped
        self._copy = learner_state.StateCopy(memory, the_learner, line, skipped)
        self._means: dict[str, float] = {}  # of the last record
        self._started = time.monotonic()
        self._due = learner_metrics.RecordTimes(config, the_record)
        self._seconds_before = 0.0  # of the runs before, in this folder
        self._restored: dict[str, float] = {}
        # Of several ranks, of which this is the first; None for a single one.
        self.rank_metrics: Callable[[], dict[str, float]] | None = None

    @property
    def finished(self) -> bool:
        steps = self._learner.agent_steps
        return steps >= self._config.total_agent_steps or bool(self._stop.reason)

    def ready(self) -> bool:
        """Returns whether a batch is there; takes in what may enter the replay."""
        if self._batcher.intake:
            self.updates.timed("batch", self._take_in)
        return self._batcher.ready()

    def _take_in(self) -> None:
        """Brings the slots that are there into the replay, as far as they may enter."""
        for _ in range(self._batcher.num_waiting()):
            slot = self._batcher.arrive()
            if slot is None:
                return
            self._look(slot)
            rows, columns = slot.parameter_version.shape
            self._learner.agent_steps += rows * columns
            self._games.add(slot, self._learner.agent_steps, self._time_secs())
            # In this order: a slot that is lost in between counts as discarded.
            self._batcher.let_go()
            self._accounts.learned(columns)

    def _look(self, fresh: batcher.Batch) -> None:
        """Counts the policy lag of fresh trajectories, and checks one of them."""
        mixed = self.updates.see(self._publisher.newest, fresh)
        if mixed:
            print(f"More than one version acted in {mixed} unrolls.", flush=True)
        alarm = self._drift.look(fresh)
        if alarm:
            print(alarm, flush=True)

    def turn(self) -> bool:
        """Makes an update if there is a batch; returns whether it did."""
        ready = self.ready()
        if self.record_is_due():
            self.write_record()
        if ready:
            self.step()
        return ready

    def discard(self) -> None:
        """Discards what is in the rings: the policy is finished, and others learn."""
        if self._batcher.discard_all():
            self._accounts.changed()
            self.checkpoints.is_stale = True

    def conclude(self, extra: dict[str, Any] | None = None) -> None:
        """Writes the last checkpoint, with `extra` as in `save`, and the last record.

        Raises:
          NotSaved: the checkpoint could not be written.
        """
        self._publisher.flush()
        self._guard.conclude()
        saved = self.save(extra)
        self.write_record()
        if not saved:
            raise NotSaved(
                "the last checkpoint could not be written. Updates since"
                f" update {self.checkpoints.saved_update} are lost"
            )

    def learn_what_is_left(self, end: float) -> None:
        """Learns the batches in the rings, until the monotonic time `end`."""
        while not self.finished and self.ready() and time.monotonic() < end:
            self.step()

    def step(self, live: base.Live | None = None) -> None:
        """Makes one update and publishes it. The rings must contain a batch.

        Args:
          live: hyperparameters that the ranks agreed on; None: the present ones.
        """
        self.row.beat(control_block.State.RUNNING)
        if self._replay:
            progress = self._learner.agent_steps / self._config.total_agent_steps
            self._replay.anneal(progress)
        batch = self.updates.timed("batch", self._batcher.take)
        if batch.num_fresh:
            self._look(batch)
        live = live or self._live()
        self.updates.add(self.updates.timed("update", self._update, batch, live))
        if batch.num_fresh:
            self._games.add(batch, self._learner.agent_steps, self._time_secs())
            self._accounts.learned(batch.num_fresh)
        self.updates.timed("publish", self.publish)
        moment = self._moment()
        self._snapshots.look(moment)
        self._stop.look(*moment[1:], self._games.return_mean())
        if self.member:
            self.member.look(self.finished)
        if self.rank_metrics is None:
            self.keep()
        self.row.add("finished", 1)

    def keep(self) -> None:
        """Copies the state into shared memory, if that is due."""
        self._copy.look(self._flushed_numbers)

    def add_games(self, rows: list[list[float]], names: list[str]) -> None:
        """Adds the games of another rank's share of the last update."""
        self._games.add_rows(rows, names, self._learner.agent_steps, self._time_secs())

    def _live(self) -> base.Live:
        return base.Live(*map(self.control.get, base.Live._fields))

    def _update(self, batch: batcher.Batch, live: base.Live) -> torch.Tensor:
        self._guard.before()
        metrics = self._learner.update(batch.trajectory, live, batch.sample)
        if self._refresher:
            self._refresher.add(batch.draw, self._learner.priorities)
        try:
            self._guard.after(batch, metrics, live)
        except errors.RunFailed:
            if self._learner.parameters.are_finite():
                self.save()  # the updates before this one
            raise
        return metrics

    def publish(self) -> None:
        """Publishes scheduled values and parameters to every reader."""
        self._publish(self._publisher.publish)

    def _publish(self, publish: Callable[[], int]) -> None:
        for name, schedule in self._schedules.items():
            self.control.set(name, schedule.at(self._learner.agent_steps))
        self._drift.published(publish(), self._learner.updates)

    # Records.

    def record_is_due(self) -> bool:
        """Returns whether a record is due, by time or by progress.

        To be asked before an update, so that the last record has the last update.
        """
        steps = self._learner.agent_steps
        return bool(self.updates.num_updates) and self._due.is_due(steps)

    def write_record(self) -> None:
        """Publishes progress and means. Waits for the device.

        Without an update since the last record, its means are repeated, because the
        reader may have missed them.
        """
        if self.updates.num_updates or not self._means:
            self._means = self.updates.take()
            for source in filter(None, (self._replay, self._batcher.intake)):
                self._means |= source.metrics()
        self._record.write(
            {
                **self._progress(),
                **self._restored,
                **self._means,
                "loss/learning_rate": self._learner.learning_rate(
                    self.control.get("learning_rate_factor")
                ),
                **self._games.metrics(),
                **(self.member.metrics() if self.member else {}),
                "health/drift": self._drift.worst,
                "health/drift_alarms": self._drift.alarms,
                "health/mixed_unrolls": self.updates.lags.mixed_unrolls,
                **{f"health/{k}": n for k, n in self._accounts.counts().items()},
                "health/updates_skipped": self.updates.num_skipped,
                "memory/device_mib": cuda.device_mib(self.updates.device),
                "health/checkpoint_update": self.checkpoints.saved_update,
                **{
                    f"live/{n}": self.control.get(n) for n in live_hyperparameters.NAMES
                },
                **(self.rank_metrics() if self.rank_metrics else {}),
            }
        )
        self._games.flush()
        self._due.written(self._learner.agent_steps)

    def _progress(self) -> dict[str, float]:
        return self._moment()._asdict()

    def _moment(self) -> snapshots.Moment:
        learned = self._learner
        return snapshots.Moment(learned.updates, learned.agent_steps, self._time_secs())

    def _time_secs(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    # Checkpoints.

    def save_is_due(self) -> bool:
        return self.checkpoints.is_due(self._learner.updates)

    def save(self, extra: dict[str, Any] | None = None) -> bool:
        """Writes a checkpoint; `extra` is the state of other processes.

        Returns:
          False if it could not be written, as on a full disk. The run continues, and
          the checkpoint before stays the newest.
        """
        self.checkpoints.begin()
        counts = self._accounts.counts()
        try:
            self._games.flush(durable=True)
            state = {**self._state(counts), **(extra or {})}
            self.checkpoints.write(self._learner.updates, state, bool(extra))
        except OSError as error:
            print(f"A checkpoint could not be written: {error}.", flush=True)
            self.control.books[0].add("failed_checkpoints", 1)
            return False
        self._accounts.saved(counts)
        if self.member:
            self.member.saved()
        return True

    def _state(self, counts: dict[str, int]) -> dict[str, Any]:
        """Returns what a checkpoint holds, but for the state of other processes."""
        state = {
            "learner": self._learner.state_dict(),
            "config": fields.to_json(self._config),
            "random_state": torch.get_rng_state(),
            **self._numbers(self.updates.num_skipped),
            "counts": counts,
        }
        if self._config.actors.policy_delay:
            state["delay_line"] = self._publisher.state_dict()
        if self._refresher and self._replay and self._config.replay.save:
            self._refresher.flush()
            state["replay"] = self._replay.state_dict()
        return state

    def _numbers(self, skipped: int) -> dict[str, Any]:
        """Returns the part of the state that is Python's: numbers, lists, strings."""
        numbers = {
            "episodes": self._games.state_dict(),
            "stop": self._stop.state_dict(),
            "stopped": self._stop.reason,
            "time_secs": self._time_secs(),
            "updates_skipped": skipped,
            "drift_alarms": self._drift.alarms,
        }
        if self._batcher.intake:
            numbers["intake"] = self._batcher.intake.state_dict()
        if self.member:
            numbers["population"] = self.member.state_dict()
        return numbers

    def _flushed_numbers(self) -> dict[str, Any]:
        """Returns the numbers but for what the device counts; flushes games' rows."""
        self._games.flush()
        return self._numbers(self.updates.skipped_before)

    def restore(self, report: Callable[[str], None]) -> dict[str, Any]:
        """Resumes from an earlier incarnation's state, or a checkpoint, and publishes.

        The state in shared memory counts if it is newer than the newest sound
        checkpoint. The replay is in checkpoints only.

        Discards the trajectories that an earlier incarnation had taken and not learned,
        so that committed = learned + discarded + in flight holds again.

        Returns:
          The state as in a checkpoint, or an empty dict.
        """
        self._accounts.discard_lost()
        state = self.checkpoints.load_newest(report)
        kept = self._copy.resume(self.checkpoints.saved_update, report)
        if state and not kept:
            self._learner.load_state_dict(state["learner"])
        state |= kept
        if "episodes" in state:  # missing in checkpoint 0 of a warm start
            torch.set_rng_state(state["random_state"])
            # Older checkpoints lack some of these.
            if "stop" in state:
                self._stop.load_state_dict(state["stop"])
            self.updates.restore(state.get("updates_skipped", 0))
            self._drift.alarms = state.get("drift_alarms", 0)
            self._seconds_before = state["time_secs"]
            if self._batcher.intake:
                self._batcher.intake.load_state_dict(state["intake"])
            if self._replay and "replay" in state:
                self._replay.load_state_dict(state.pop("replay"))  # large: not kept
        self._games.restore(state.get("episodes"))
        moment = self._moment()
        self._snapshots.restore(moment.agent_steps)
        self._stop.look(*moment[1:], self._games.return_mean())
        if self.member:
            self.member.restore(state.get("population"), self.finished)
        self._restored = {f"restored/{k}": v for k, v in self._progress().items()}
        self._restored["restored/incarnation"] = self.row.get("incarnation")
        if "delay_line" in state:
            self._publisher.load_state_dict(state["delay_line"])
            self._publish(self._publisher.republish)
        else:
            self.publish()
        self._publisher.flush()
        self.write_record()
        self._due.hurry()  # at the next update
        return state
