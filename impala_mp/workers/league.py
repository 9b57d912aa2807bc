"""League of one learner: takes the snapshots, counts the results, sets the weights.

A snapshot is a file league/VERSION.pt, written once, and a slot of the league's memory.
A learner that resumes continues with the snapshots of its state, and with those that
were taken after it.
"""

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from impala_mp import errors, types
from impala_mp.config import league
from impala_mp.networks import flat_parameters
from impala_mp.storage import files, snapshot_file
from impala_mp.transport import league_memory
from impala_mp.workers import learner

METRICS = (
    "league/size",
    "league/newest",
    "league/elo",
    "league/games",
    "league/win_rate",
    "league/win_rate_min",
    "league/win_rate_newest",
    "league/win_rate_oldest",
)


class League:
    """The learner's side of a league."""

    def __init__(
        self,
        settings: Any,
        folder: str,
        memory: league_memory.LeagueMemory,
        the_learner: learner.Learner,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes `config.league`, and the run's folder or that of the policy.

        `beat` is called while files are read and written.
        """
        self._settings, self._memory, self._beat = settings, memory, beat
        self._folder = os.path.join(folder, snapshot_file.FOLDER)
        self._table = os.path.join(folder, "league.json")
        self._learner = the_learner
        self._records: list[league.Record] = []  # the oldest snapshot first
        self._past = [0, 0, 0]  # wins, draws, losses against snapshots that have left
        self._next_version = 1
        self._next_steps = 0  # agent steps at which a snapshot is due
        self._changed = False  # since the last flush

    def add(self, game: types.LeagueGame, agent_steps: int) -> None:
        """Counts the results of a batch; takes a snapshot if one is due."""
        rows, columns = np.nonzero(~np.isnan(game.result))
        if len(rows):
            by_version = {record.version: record for record in self._records}
            for version, result in zip(
                game.opponent[rows, columns].tolist(),
                game.result[rows, columns].tolist(),
                strict=True,
            ):
                if version in by_version:
                    by_version[version].add(result)
                else:
                    self._past[2 - round(2.0 * result)] += 1
            self._weigh()
        if agent_steps >= self._next_steps or (
            len(rows) and league.is_beaten(self._records, self._settings.threshold)
        ):
            self._freeze(agent_steps)

    def _weigh(self) -> None:
        """Publishes the weights of all snapshots."""
        self._changed = True
        rates = [record.win_rate for record in self._records]
        weights = league.weights(rates, self._settings.draw)
        of_version = {
            record.version: weight
            for record, weight in zip(self._records, weights, strict=True)
        }
        for entry in self._memory.entries():
            self._memory.weigh(entry.slot, of_version.get(entry.version, 0.0))

    # Snapshots.

    def _freeze(self, agent_steps: int) -> None:
        """Takes a snapshot of the present parameters.

        If its file cannot be written, as on a full disk, the run continues without it.
        """
        self._next_steps = agent_steps + self._settings.every
        record = league.Record(
            self._next_version, agent_steps, round(league.elo(self._records), 1)
        )
        state = {
            "version": record.version,
            "elo": record.elo,
            "learner": {
                "parameters": self._learner.state_dict()["parameters"],
                "updates": self._learner.updates,
                "agent_steps": agent_steps,
            },
        }
        try:
            snapshot_file.write(self._folder, record.version, state)
        except OSError as error:
            print(f"A snapshot could not be written: {error}.", flush=True)
            return
        self._next_version += 1
        self._enter(record, self._learner.parameters.flat.cpu().numpy())

    def _enter(self, record: league.Record, flat: np.ndarray) -> None:
        """Lets a new snapshot play; another one leaves if there is no slot for it."""
        self._records.append(record)
        self._thin()
        self._clear_unknown()
        self._memory.write(self._free_slot(), record.version, flat)
        self._weigh()

    def _clear_unknown(self) -> None:
        """Leaves the memory with the snapshots of the records alone."""
        known = {record.version for record in self._records}
        for entry in self._memory.entries():
            if entry.version not in known:
                self._memory.clear(entry.slot)

    def _free_slot(self) -> int:
        taken = {entry.slot for entry in self._memory.entries()}
        return next(i for i in range(self._memory.num_slots) if i not in taken)

    def _thin(self) -> None:
        """Drops snapshots until the others fit; their results stay counted."""
        newest = self._records[-1].version
        ages = [1.0 + newest - record.version for record in self._records]
        while (index := league.to_drop(ages, self._settings.size)) is not None:
            dropped = self._records.pop(index)
            ages.pop(index)
            for i, name in enumerate(("wins", "draws", "losses")):
                self._past[i] += getattr(dropped, name)

    # Numbers.

    def metrics(self) -> dict[str, float]:
        """Returns the metrics under league/."""
        rates = [record.win_rate for record in self._records]
        if not rates:
            return {}
        return {
            "league/size": len(rates),
            "league/newest": self._records[-1].version,
            "league/elo": league.elo(self._records),
            "league/games": sum(self._past) + sum(x.games for x in self._records),
            "league/win_rate": sum(rates) / len(rates),
            "league/win_rate_min": min(rates),
            "league/win_rate_newest": rates[-1],
            "league/win_rate_oldest": rates[0],
        }

    def flush(self) -> None:
        """Writes league.json if something has changed; a full disk loses it."""
        if not self._changed:
            return
        text = json.dumps({"elo": league.elo(self._records), **self.state_dict()})
        try:
            files.write_atomically(self._table, text + "\n", durable=False)
        except OSError as error:
            print(f"league.json could not be written: {error}.", flush=True)
        self._changed = False

    def state_dict(self) -> dict[str, Any]:
        """Returns numbers, lists and strings."""
        return {
            "snapshots": [vars(record).copy() for record in self._records],
            "past": dict(zip(("wins", "draws", "losses"), self._past, strict=True)),
            "next_steps": self._next_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a state, or begins without one; fills the memory.

        Without a snapshot the present parameters become the first.

        Raises:
          RunFailed: it could not be written.
        """
        self._records = [league.Record(**each) for each in state.get("snapshots", ())]
        self._past = list(state.get("past", {}).values()) or self._past
        self._next_steps = state.get("next_steps", 0)
        known = max((record.version for record in self._records), default=0)
        there = snapshot_file.versions(self._folder)
        self._next_version = max([known, *there]) + 1
        for version in there:
            saved = self._read(version) if version > known else None
            if saved:
                learned = saved["learner"]
                self._records.append(
                    league.Record(version, learned["agent_steps"], saved["elo"])
                )
        if self._records:
            self._thin()
        self._fill()
        if not self._records:
            self._freeze(self._learner.agent_steps)
        if not self._records:  # the actors would wait for ever
            raise errors.RunFailed(
                f"the first snapshot of the league cannot be written to {self._folder}"
            )

    def _fill(self) -> None:
        """Brings the snapshots of the records from their files into the memory."""
        self._clear_unknown()
        present = {entry.version for entry in self._memory.entries()}
        scratch = copy.deepcopy(self._learner.agent.network).cpu()
        flat = flat_parameters.FlatParameters(scratch).flat.numpy()
        for record in list(self._records):
            if record.version in present:
                continue
            saved = self._read(record.version)
            if saved is None:
                self._records.remove(record)
                continue
            scratch.load_state_dict(saved["learner"]["parameters"])
            self._memory.write(self._free_slot(), record.version, flat)
        self._weigh()

    def _read(self, version: int) -> dict[str, Any] | None:
        """Returns the snapshot in a file; None if it cannot be used."""
        self._beat()
        try:
            return snapshot_file.read(self._folder, version)
        except snapshot_file.Damaged as error:
            print(f"The league continues without a file: {error}", flush=True)
            return None
