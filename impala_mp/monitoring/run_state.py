"""State of a run as every display shows it: facts, records, and rows of numbers."""

import os
import time
from typing import NamedTuple

from impala_mp.monitoring import formats, history
from impala_mp.storage import workdir

_SICK = "bold red"

Row = tuple[str, str, str]  # label, value, style of the value


class Facts(NamedTuple):
    """Constants of a run."""

    environment: str
    total_agent_steps: int
    algorithm: str = ""
    parameters: int = 0
    seed: int | None = None
    folder: str = ""


class RunState(NamedTuple):
    """Facts and records of a run, with the ages that no record has."""

    facts: Facts
    history: history.History
    bottleneck: str = ""
    record_age_secs: float = 0.0
    checkpoint_age_secs: float | None = None
    is_running: bool = True

    @property
    def record(self) -> history.Record:
        """Newest record; empty before the first one."""
        return self.history.last

    def share(self) -> float:
        """Returns the part of the run that is learned, from 0 to 1."""
        steps = self.record.get("agent_steps", 0)
        return min(1.0, max(0.0, steps / max(1, self.facts.total_agent_steps)))

    def left(self) -> str:
        """Returns the time left at the recent speed; "" if it has ended."""
        secs = self.history.secs_left(self.facts.total_agent_steps)
        if secs is None or self.share() >= 1.0 or not self.is_running:
            return ""
        return formats.duration(max(0.0, secs - self.record_age_secs))

    def elapsed(self) -> str:
        """Returns the time of learning, over all runs in the folder."""
        secs = self.record.get("time_secs")
        return "" if secs is None else formats.duration(secs + self.record_age_secs)

    def learning(self) -> list[Row]:
        """Returns rows on the policy and the values, the most telling first."""
        get = self.record.get
        entropy = formats.small(get("policy/entropy"))
        return _known(
            ("entropy", f"{entropy} nats" if entropy else ""),
            ("expl. var.", formats.small(get("value/explained_variance"))),
            ("KL", formats.small(get("vtrace/kl"))),
            ("epsilon", formats.small(get("live/epsilon") or None)),
            ("Q gap", formats.small(get("q/gap"))),
            ("Q - return", formats.small(get("q/overestimation"))),
            ("grad norm", formats.small(get("loss/gradient_norm"))),
            ("learning rate", formats.small(get("loss/learning_rate"))),
            ("ep. length", formats.short(get("episode/length_mean"))),
            ("value", formats.number(get("value/mean", get("q/mean")))),
            ("adv. std", formats.small(get("advantage/std"))),
            ("rho clipped", formats.percent(get("vtrace/rho_clipped"))),
        )

    def speed(self) -> list[Row]:
        """Returns rows on throughput and the split of time."""
        get = self.record.get
        steps, frames = (self.history.rate(n) for n in ("agent_steps", "env_frames"))
        busy = get("time/learner_update")
        return _known(
            ("steps/s", formats.short(self.history.speed())),
            ("updates/s", formats.short(self.history.rate("updates"))),
            ("learner", f"{formats.percent(busy)} busy" if busy is not None else ""),
            ("env / actor", formats.percent(get("time/actor_environment"))),
            ("inference", formats.percent(get("time/actor_inference"))),
            ("policy lag", self.lag()),
            ("frames/s", formats.short(frames) if frames != steps else ""),
            ("actors wait", formats.percent(get("time/actor_wait"))),
            ("learner waits", formats.percent(get("time/learner_wait"))),
        )

    def lag(self) -> str:
        """Returns mean and largest policy lag in updates."""
        mean = formats.small(self.record.get("lag/mean"))
        top = formats.short(self.record.get("lag/max"))
        return f"{mean}, max {top}" if mean and top else mean

    def span(self, to: str) -> str:
        """Returns the lowest and the highest return of the last games."""
        low, high = (
            formats.number(self.record.get(f"episode/return_{name}"))
            for name in ("min", "max")
        )
        return f"{low}{to}{high}" if low and high else ""

    def run(self) -> list[Row]:
        """Returns rows on processes, checkpoints and memory."""
        get = self.record.get
        age = formats.age(self.checkpoint_age_secs)
        return [
            *_known(("elapsed", self.elapsed())),
            *self.processes(),
            *_known(
                ("checkpoint", f"{age} ago" if age else ""),
                ("memory", self._memory()),
                ("GPU memory", _mib(get("memory/device_mib"))),
            ),
        ]

    def processes(self) -> list[Row]:
        """Returns rows on processes, restarts and defects; trouble is red."""
        get = self.record.get
        alive, total = get("health/processes_alive"), get("health/processes_total")
        rows: list[Row] = []
        is_over = not self.is_running or self.share() >= 1.0
        if alive is not None and total is not None and not is_over:
            style = _SICK if alive < total else ""
            rows.append(("processes", f"{alive:.0f} of {total:.0f}", style))
        if (restarts := get("health/restarts")) is not None:
            rows.append(("restarts", f"{restarts:,.0f}", "yellow" if restarts else ""))
        for label, name in (
            ("skipped", "updates_skipped"),
            ("bad unrolls", "bad_data"),
            ("drift alarms", "drift_alarms"),
        ):
            if count := get(f"health/{name}"):
                rows.append((label, f"{count:,.0f}", _SICK))
        return rows

    def trouble(self) -> list[Row]:
        """Returns the rows of `processes` that are not as they should be."""
        return [row for row in self.processes() if row[2]]

    def _memory(self) -> str:
        """Returns the memory of all processes and the arena."""
        parts = [
            value
            for key, value in self.record.items()
            if key.startswith("memory/") and key != "memory/device_mib"
        ]
        return _mib(sum(parts)) if parts else ""

    def user_names(self) -> list[str]:
        """Returns the names of the user's numbers, without their extremes and tasks."""
        keys = [key for key in self.record if key.startswith("env/")]
        return [n for n in (k.removeprefix("env/") for k in keys) if "/" not in n]

    def users(self) -> list[Row]:
        """Returns rows on the user's numbers: means of the last games."""
        return [
            (_words(name), formats.number(self.record[f"env/{name}"]), "")
            for name in self.user_names()
        ]

    def tasks(self) -> list[Row]:
        """Returns rows on the tasks of a run with several: mean returns."""
        prefix = f"{history.RETURN}/"
        return [
            (key.removeprefix(prefix), formats.number(value), "")
            for key, value in self.record.items()
            if key.startswith(prefix)
        ]

    def essentials(self) -> list[Row]:
        """Returns the rows of a small terminal, the most telling first."""
        learning, speed, run = (
            {row[0]: row for row in rows}
            for rows in (self.learning(), self.speed(), self.run())
        )
        wanted = (
            speed.get("steps/s"),
            run.get("elapsed"),
            learning.get("entropy"),
            run.get("processes"),
            *self.users()[:1],
            run.get("restarts"),
            learning.get("expl. var."),
            run.get("checkpoint"),
            speed.get("policy lag"),
        )
        return [row for row in wanted if row]


def _known(*rows: tuple[str, str]) -> list[Row]:
    """Returns the rows that have a value."""
    return [(label, value, "") for label, value in rows if value]


def _words(name: str) -> str:
    return name.removesuffix("_rate").replace("_", " ")


def _mib(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} MiB" if value < 10_000 else f"{value / 1024:,.1f} GiB"


def checkpoint_age(folder: str) -> float | None:
    """Returns the seconds since the newest checkpoint was written; None without one."""
    try:
        written = os.stat(workdir.newest_checkpoint(folder)).st_mtime
    except OSError:
        return None
    return max(0.0, time.time() - written)


def half_width(evaluation: history.Record) -> str:
    """Returns half of an evaluation's 95 % interval, as .03; "" if unknown."""
    if not evaluation.keys() >= {"low", "high"}:
        return ""
    half = (evaluation["high"] - evaluation["low"]) / 2
    return formats.small(half).removeprefix("0") or "0"
