"""Evaluations during training: at fixed agent steps, within a share of the cores."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from impala_mp import errors
from impala_mp.config import container_limits, derived
from impala_mp.environments import vector
from impala_mp.networks import agent, flat_parameters
from impala_mp.storage import best_checkpoint, evaluations
from impala_mp.transport import control_block, shared as shared_lib
from impala_mp.workers import evaluator, film as film_lib, line_up, snapshots

MAX_SHARE = 0.01  # of the machine's cores, unless evaluation.interval_steps is set


class Allowance:
    """Sleeps as long as this process has taken more than its share of the cores."""

    def __init__(self, share: float, row: control_block.ProcessRow) -> None:
        self._share, self._row = share, row
        self._start, self._used = time.monotonic(), time.process_time()

    def pause(self, goes_on: Callable[[], bool]) -> None:
        """Sleeps, with heartbeats, until the share is kept or the run stops."""
        while goes_on():
            elapsed = time.monotonic() - self._start
            used = time.process_time() - self._used
            late = used / self._share - elapsed
            if late <= 0.0:
                return
            self._row.beat(control_block.State.WAITING_FOR_DATA)
            time.sleep(min(late, 0.2))


class EvaluationLoop:
    """Loop of the evaluator. It owns `checkpoints/best` while the run lives."""

    def __init__(
        self,
        policies: Sequence[shared_lib.Shared],
        agents: Sequence[agent.Agent],
        environments: dict[str, vector.VectorEnvironment],
        row: control_block.ProcessRow,
    ) -> None:
        """`environments` has those of each task, by its suffix."""
        self._shared, self._agents, self._row = policies[0], agents, row
        self._policies, self._environments = policies, environments
        shared = policies[0]
        self._settings = shared.whole.evaluation
        self._films = self._settings.films  # until drawing fails
        self._snapshots = [
            snapshots.Reader(
                each.snapshots, flat_parameters.FlatParameters(own.network).flat
            )
            for each, own in zip(policies, agents, strict=True)
        ]
        self._moments: list[snapshots.Moment | None] = [None for _ in policies]
        self._new: set[int] = set()  # policies with a snapshot not evaluated yet
        self._folder = shared.folder
        self._best = best_checkpoint.BestCheckpoint(shared.checkpoints)
        share = 1.0 if self._settings.interval_steps else MAX_SHARE
        self._allowance = Allowance(share * container_limits.num_cores(), row)

    def run(self) -> None:
        """Evaluates until the run stops."""
        if not any(
            each["policy"] == evaluations.RANDOM
            for each in evaluations.read(self._folder)
        ):
            self._evaluate_at_random()
        while self._goes_on():
            moment = self._fetch()
            if moment is None:
                self._row.beat(control_block.State.WAITING_FOR_DATA)
                time.sleep(0.1)
                continue
            self._evaluate(moment)

    def _fetch(self) -> snapshots.Moment | None:
        """Fetches new snapshots; returns the progress of all, None without one."""
        found = [reader.fetch() for reader in self._snapshots]
        self._moments = [
            new or old for new, old in zip(found, self._moments, strict=True)
        ]
        moments = [moment for moment in self._moments if moment]
        new = {k for k, moment in enumerate(found) if moment}
        # A policy that is finished has no new ones any more.
        is_due = bool(new & self._new) or len(new | self._new) == len(found)
        self._new |= new
        if not is_due or len(moments) < len(found):
            return None
        self._new.clear()
        updates, steps, secs = zip(*moments, strict=True)
        return snapshots.Moment(sum(updates), sum(steps), max(secs))

    def _goes_on(self) -> bool:
        return not self._shared.control.stopping

    def _each_step(self) -> bool:
        self._row.beat(control_block.State.RUNNING)
        self._allowance.pause(self._goes_on)
        return self._goes_on()

    def _evaluate_at_random(self) -> None:
        at_random = [
            evaluator.RandomPolicy(own, each.environment.action)
            for each, own in zip(self._policies, self._agents, strict=True)
        ]
        played = self._play(at_random, evaluator.SELECTION)
        if played:
            start = snapshots.Moment(0, 0, 0.0)
            self._keep(played, evaluations.PROGRESS, evaluations.RANDOM, start)

    def _evaluate(self, moment: snapshots.Moment) -> None:
        """Evaluates the snapshots; keeps it as the best if no other was better.

        Of several policies, which may play against each other, none is the best.
        """
        played = self._play(self._agents, evaluator.SELECTION)
        if not played:
            return
        line = self._keep(played, evaluations.PROGRESS, self._kind, moment)
        if self._films:
            self._film(moment)
        self._shared.evaluation_record.write(evaluator.as_record(line))
        self._row.add("finished", 1)
        if len(self._agents) == 1 and self._best.is_better(line["mean"]):
            again = self._play(self._agents, evaluator.REPORT)
            if again:
                self._keep(
                    again, evaluations.BEST, self._kind, moment, evaluator.REPORT
                )
                self._save(moment, line["mean"])

    def _save(self, moment: snapshots.Moment, mean: float) -> None:
        parameters = self._agents[0].network.state_dict()
        try:
            self._best.save(
                parameters, moment.updates, moment.agent_steps, mean, self._row.beat_on
            )
        except OSError as error:
            print(f"The best checkpoint could not be written: {error}.", flush=True)

    def _film(self, moment: snapshots.Moment) -> None:
        """Films a game of the first task, within the share of the cores.

        An environment that draws no pictures is not asked again.
        """
        try:
            film = self._filmed()
        except errors.BadInput as error:
            self._films = False
            print(f"There are no more films: {error}", flush=True)
            return
        folder = os.path.join(self._folder, "films")
        try:
            os.makedirs(folder, exist_ok=True)
            film.save(os.path.join(folder, f"{moment.agent_steps}.gif"))
        except OSError as error:
            print(f"A film could not be written: {error}.", flush=True)

    def _filmed(self) -> film_lib.Film:
        """Plays a game; raises BadInput if the environment draws no pictures."""
        environment = next(iter(self._environments.values()))
        film = film_lib.Film(environment, small=True)
        evaluator.evaluate(
            line_up.of(self._agents, environment),
            environment,
            1,
            self._settings.greedy,
            self._seed(evaluator.SELECTION),
            lambda: film() and self._each_step(),
            self._settings.max_steps,
        )
        film()  # the end of the game
        return film

    @property
    def _kind(self) -> str:
        return evaluations.GREEDY if self._settings.greedy else evaluations.SAMPLED

    def _play(self, policies: Sequence[Any], seeds: int) -> dict[str, evaluator.Played]:
        """Returns the games of each task; empty if one has none or the run stops."""
        by_task = dict(self._games(policies, self._seed(seeds)))
        complete = all(played.returns for played in by_task.values())
        return by_task if complete and self._goes_on() else {}

    def _seed(self, seeds: int) -> np.random.SeedSequence:
        return evaluator.seed_of(self._shared.config, seeds)

    def _games(
        self, policies: Sequence[Any], seed: np.random.SeedSequence
    ) -> Iterator[tuple[str, evaluator.Played]]:
        for suffix, environment in self._environments.items():
            played = evaluator.evaluate(
                line_up.of(policies, environment),
                environment,
                self._settings.training_episodes,
                self._settings.greedy,
                seed,
                self._each_step,
                self._settings.max_steps,
            )
            by_label = played.by_label(suffix, environment.labels, environment.policies)
            yield from by_label.items()

    def _keep(
        self,
        played: dict[str, evaluator.Played],
        purpose: str,
        policy: str,
        moment: snapshots.Moment,
        seeds: int = evaluator.SELECTION,
    ) -> dict[str, Any]:
        """Appends the line of an evaluation, and returns it."""
        line = evaluator.as_line(
            played,
            purpose,
            policy,
            moment.agent_steps,
            moment.updates,
            moment.time_secs,
            self._seed(seeds),
            derived.evaluation_environment(self._shared.config).kwargs,
        )
        try:
            evaluations.append(self._folder, line)
        except OSError as error:
            print(f"An evaluation could not be written: {error}.", flush=True)
        return line
