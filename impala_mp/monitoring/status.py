"""Report on a run from its files, as `impala-status` prints it."""

import time
from typing import Any, NamedTuple

import rich.console
import rich.table
import rich.text

from impala_mp import errors
from impala_mp.config import by_value
from impala_mp.monitoring import (
    blocks,
    formats,
    health as health_lib,
    history,
    host_states,
    population,
    run_state,
)
from impala_mp.storage import evaluations, files, metrics, workdir

_SPARKS = 40  # columns
_MAX_ERRORS = 3
_TROUBLED = ("hung", "lost", "restarting")  # the end of a run has a reason, too
_GOOD = {"running": "green", "finished": "green", "stopped": "yellow"}


class StatusReport(NamedTuple):
    """Content and verdict of `impala-status`."""

    table: rich.console.Group
    running: bool
    healthy: bool


class Run(NamedTuple):
    """Content of a run's files."""

    path: str
    state: run_state.RunState
    health: dict[str, Any]
    verdict: health_lib.Verdict

    evaluations: dict[str, dict[str, Any]]  # the newest, by policy
    random: float | None  # mean return of the random policy

    def evaluation(self) -> dict[str, Any]:
        """Returns the newest evaluation; empty without one."""
        first: dict[str, Any] = next(iter(self.evaluations.values()), {})
        return first or self.state.history.evaluation


def load(path: str) -> Run:
    """Reads the files of the run in `path`.

    Raises:
      BadInput: there is no run, or it cannot be read.
    """
    health = health_lib.load(path)
    verdict = health_lib.judge(path, health)
    records = history.History()
    for record in metrics.records(path):
        records.add(record)
    age = max(0.0, time.time() - health["time"]) if verdict.is_running else 0.0
    state = run_state.RunState(
        _facts(path),
        records,
        health["bottleneck"],
        age,
        run_state.checkpoint_age(path),
        verdict.is_running,
    )
    found = evaluations.read(path)
    random = [e["mean"] for e in found if e["policy"] == evaluations.RANDOM]
    return Run(path, state, health, verdict, _newest(found), (random or [None])[-1])


def read(path: str, processes: bool = False, ascii_only: bool = False) -> StatusReport:
    """Reports on the run in `path`.

    Args:
      processes: True lists them also if all are well.

    Raises:
      BadInput: there is no run, or it cannot be read.
    """
    run = load(path)
    statuses = [
        health_lib.Status(**{name: each[name] for name in health_lib.Status._fields})
        for each in run.health["processes"]
    ]
    grid = rich.table.Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for label, text in (*_progress(run), *_learning(run, ascii_only), *_rest(run)):
        grid.add_row(label, text)
    for text in _errors(statuses):
        grid.add_row("last error", _text(text, "red"))
    parts: list[Any] = [_headline(run, ascii_only), grid]
    if processes or (run.verdict.is_running and not run.verdict.is_healthy):
        parts.append(_processes(statuses))
    if hosts := run.health.get("hosts", []):
        parts += [_hosts(hosts), *_reasons(hosts)]
    lines = [*run.health.get("live", []), run.health["bottleneck"], run.health["stall"]]
    parts += [_text(line) for line in (*lines, run.verdict.sentence) if line]
    return StatusReport(
        rich.console.Group(*parts), run.verdict.is_running, run.verdict.is_healthy
    )


def _facts(path: str) -> run_state.Facts:
    """Returns facts from config.json; a run whose config cannot be read has few."""
    try:
        config = workdir.read_config(path)
        return run_state.Facts(
            by_value.without_digests(str(config.environment.id)),
            int(config.total_agent_steps),
            str(config.algorithm),
            seed=int(config.seed),
            folder=path,
        )
    except (errors.BadInput, AttributeError, TypeError, ValueError):
        return run_state.Facts("", 0, folder=path)


def _newest(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the newest evaluations by policy; the greedy policy is the first."""
    places = [e["agent_steps"] for e in found if e["policy"] != evaluations.RANDOM]
    played = evaluations.chosen(found).items()
    newest = {policy: e for (policy, at), e in played if at == places[-1]}
    return dict(sorted(newest.items(), key=lambda item: item[0] != evaluations.GREEDY))


def _headline(run: Run, ascii_only: bool) -> rich.text.Text:
    facts, dot = run.state.facts, " - " if ascii_only else " · "
    parts = [facts.environment, facts.algorithm]
    parts.append("" if facts.seed is None else f"seed {facts.seed}")
    line = _text(run.verdict.state, f"bold {_GOOD.get(run.verdict.state, 'red')}")
    return line.append_text(_text("".join(f"{dot}{each}" for each in parts if each)))


def _progress(run: Run) -> list[tuple[str, str]]:
    state = run.state
    steps = state.record.get("agent_steps")
    if steps is None:
        return [("progress", "no update yet")]
    total, left = state.facts.total_agent_steps, state.left()
    texts = [f"{steps:,.0f} steps"]
    if total:
        texts = [f"{100 * state.share():.1f} %", f"{steps:,.0f} of {total:,} steps"]
    texts += [f"{left} left" if left else "", f"{state.elapsed()} elapsed"]
    return [("progress", "  ".join(filter(None, texts)))]


def _learning(run: Run, ascii_only: bool) -> list[tuple[str, str]]:
    record, records = run.state.record, run.state.history
    rows = []
    if history.RETURN in record:
        span = run.state.span(" .. " if ascii_only else " … ")
        texts = [formats.number(record[history.RETURN]), f"({span})" if span else ""]
        columns = blocks.columns(*records.series(history.RETURN), _SPARKS)
        texts.append(blocks.sparkline(columns, ascii_only))
        rows.append(("return", "  ".join(filter(None, texts))))
    if best := records.best:
        kind = "evaluation" if best.is_evaluation else "mean of 100 games"
        at = f"{formats.number(best.value)} at {formats.short(best.agent_steps)} steps"
        rows.append(("best", f"{at} ({kind})"))
    rows += _evaluations(run, "+-" if ascii_only else "±")
    rows += population.rows(run.path, record)
    rows += [(label, value) for label, value, _ in run.state.users()]
    return rows


def _evaluations(run: Run, about: str) -> list[tuple[str, str]]:
    rows = []
    for policy, each in (run.evaluations or {"": run.evaluation()}).items():
        if not each:
            continue
        half = run_state.half_width(each)
        texts = [formats.number(each["mean"]), f"{about}{half}" if half else ""]
        texts.append(f"at {formats.short(each['agent_steps'])} steps")
        if games := each.get("episodes"):
            texts.append(f"over {games:,.0f} games")
        texts.append(f"({policy})" if policy else "")
        rows.append(("evaluation", " ".join(filter(None, texts))))
    if run.random is not None:
        rows.append(("random policy", formats.number(run.random)))
    return rows


def _rest(run: Run) -> list[tuple[str, str]]:
    """Returns rows on speed, checkpoint and processes."""
    state, record = run.state, run.state.record
    speed, updates = state.history.speed(), state.history.rate("updates")
    rows = []
    if speed is not None:
        texts = [f"{speed:,.0f} agent steps/s"]
        texts.append(f"{updates:,.1f} updates/s" if updates is not None else "")
        texts.append(f"policy lag {lag}" if (lag := state.lag()) else "")
        rows.append(("speed", ", ".join(filter(None, texts))))
    newest = workdir.newest_update(run.path)
    if newest >= 0 and state.checkpoint_age_secs is not None:
        age = formats.age(state.checkpoint_age_secs)
        rows.append(("checkpoint", f"update {newest:,}, {age} ago"))
    rows += [(label, value) for label, value, _ in state.processes()]
    if "health/committed" in record:
        names = ("committed", "learned", "discarded", "in_flight")
        made, *where = (record.get(f"health/{name}", 0) for name in names)
        words = ("learned", "discarded", "in flight")
        split = " + ".join(
            f"{n:,.0f} {word}" for n, word in zip(where, words, strict=True)
        )
        rows.append(("trajectories", f"{made:,.0f} = {split}"))
    return rows


def _errors(statuses: list[health_lib.Status]) -> list[str]:
    """Returns the reasons of the newest restarts, one for each process."""
    found = [
        f"{each.role} {each.index} {each.reason}"
        for each in statuses
        if each.reason and (each.restarts or each.state in _TROUBLED)
    ]
    return found[:_MAX_ERRORS]


def _processes(statuses: list[health_lib.Status]) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False)
    for column in ("process", "pid", "incarnation", "state", "heartbeat", "restarts"):
        table.add_column(column)
    for each in statuses:
        cells = (
            f"{each.role} {each.index}",
            each.pid or "-",
            each.incarnation,
            each.state,
            f"{each.heartbeat_age_secs:.1f} s",
            each.restarts,
        )
        table.add_row(*map(_text, cells))
    return table


def _hosts(states: list[dict[str, Any]]) -> rich.table.Table:
    """Returns a line for each actor host, the worst first, and the sums."""
    table = rich.table.Table(box=None, pad_edge=False)
    for column in ("host", "node", "state", "incarnation", "actors", "steps/s", "lag"):
        table.add_column(column)
    for column in ("age p99", "MB/s", "arrived", "lost", "restarts"):
        table.add_column(column)
    sums = ("actors_alive", "actors", "steps_per_sec", "wire_mb_per_sec", "arrived")
    whole = {key: sum(host[key] for host in states) for key in (*sums, "lost")}
    for host in (*host_states.worst(states), {**states[0], **whole, "seat": "all"}):
        one = host["seat"] != "all"
        cells = (
            host["seat"],
            host["node"] if one else "",
            host["state"].replace("_", " ") if one else "",
            host["incarnation"] if one else "",
            f"{host['actors_alive']:g}/{host['actors']:g}",
            f"{host['steps_per_sec']:,.0f}",
            host["lag"] if one else "",
            f"{host['age_p99_secs']:.3f} s" if one else "",
            f"{host['wire_mb_per_sec']:.2f}",
            f"{host['arrived']:,}",
            f"{host['lost']:,}",
            host["restarts"] if one else "",
        )
        table.add_row(*map(_text, cells))
    return table


def _reasons(states: list[dict[str, Any]]) -> list[rich.text.Text]:
    """Returns why hosts died last, of the worst ones."""
    found = [host for host in host_states.worst(states) if host["reason"]]
    lines = [f"host {host['seat']}: {host['reason']}" for host in found[:_MAX_ERRORS]]
    return [_text(line) for line in lines]


def _text(value: Any, style: str = "") -> rich.text.Text:
    """Returns a value of a file as text, without markup and control characters."""
    return rich.text.Text(files.visible(str(value)), style)
