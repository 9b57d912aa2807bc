"""Lower half of a report: film, config, processes, history, commands, versions."""

import base64
import re
import shlex
import time
from typing import Any

from impala_mp.config import base, by_value
from impala_mp.monitoring import html_parts, report
from impala_mp.storage import machine

# Names of fields and arguments whose values are not shown.
_SECRET = re.compile(r"passw|secret|token|credential|api_?key", re.IGNORECASE)
_DEVICE = "learner.device"
_MAX_ROWS = 60  # of a table; the newest ones
_MAX_CELL = 300  # characters of a value
_text, _section = html_parts.text, html_parts.section


def render(run: report.Run) -> str:
    """Returns these sections as HTML."""
    sections = (_film, _config, _health, _journal, _lineage, _commands)
    return "".join(section(run) for section in sections) + _about(run)


def _film(run: report.Run) -> str:
    if not run.film:
        return ""
    data = base64.b64encode(run.film).decode()
    return _section(
        "Film",
        '<figure class="card fit"><img class="film" alt="one game of the final policy"'
        f' src="data:image/gif;base64,{data}"></figure>',
    )


def _config(run: report.Run) -> str:
    if not run.settings:
        return ""
    rows = [
        (f"<code>{_text(name)}</code>", _value(name, value), _value(name, default))
        for name, (default, value) in run.changed.items()
    ]
    table = html_parts.table(("field", "this run", "default"), rows)
    total = len(base.FIELDS)
    note = (
        f'<p class="soft">{len(rows)} of {total} fields differ from the defaults.</p>'
    )
    return _section("Config", table + note)


def _value(name: str, value: Any) -> str:
    """Returns a value of the config; passwords and the like are masked."""
    if value is None:
        return "–"
    searched = name if isinstance(value, str) else f"{name} {value}"
    if _SECRET.search(searched):
        return "(not shown)"
    text = by_value.without_digests(repr(value))
    text = text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL]}…"
    return f"<code>{_text(text)}</code>"


def _health(run: report.Run) -> str:
    rows = [
        (
            f"{_text(each['role'])} {_text(each['index'])}",
            _text(each["state"].replace("_", " ")),
            html_parts.whole(each["restarts"]),
            html_parts.whole(each["incarnation"]),
            _text(each["reason"]) or "–",
        )
        for each in run.health.processes[-_MAX_ROWS:]
    ]
    header = ("process", "state", ">restarts", ">incarnation", "last end or error")
    bottleneck = run.health.bottleneck
    note = f'<p class="soft">{_text(bottleneck)}</p>' if bottleneck else ""
    table = html_parts.table(header, rows)
    return _section("Processes", table + note if table else "")


def _journal(run: report.Run) -> str:
    rows = [
        (
            html_parts.date(each.get("time")),
            html_parts.whole(each.get("agent_steps")),
            f"<code>{_text(each.get('name'))}</code>",
            _value(str(each.get("name")), each.get("from")),
            _value(str(each.get("name")), each.get("to")),
            _text(each.get("by", "–")),
        )
        for each in run.journal[-_MAX_ROWS:]
    ]
    header = ("time", ">agent steps", "value", "from", "to", "by")
    return _section("Changes during the run", html_parts.table(header, rows))


def _lineage(run: report.Run) -> str:
    rows = []
    for each in run.lineage:
        arrays = each.get("arrays")
        fates = list(arrays.values()) if isinstance(arrays, dict) else []
        copied = f"{fates.count('copied')} of {len(fates)} arrays" if fates else "–"
        rows.append(
            (
                _text(each.get("run", "–")),
                _text(each.get("checkpoint", "–")),
                html_parts.whole(each.get("agent_steps")),
                copied,
                html_parts.date(each.get("time")),
            )
        )
    header = ("began with the weights of", "checkpoint", ">agent steps", "copied", "at")
    return _section("Lineage", html_parts.table(header, rows))


def _commands(run: report.Run) -> str:
    folder = shlex.quote(run.folder)
    lines = (
        f"impala-train {folder}    # resumes the run",
        f"impala-eval {folder} --episodes=100",
        f"impala-play {folder}",
        f"tensorboard --logdir={folder}",
    )
    text = _text("\n".join(lines))
    return _section("Commands", f'<pre class="card">{text}</pre>')


def _about(run: report.Run) -> str:
    facts = run.machine or machine.describe()
    rows = [(_text(name), _text(value)) for name, value in facts.items()]
    note = f"Report of {html_parts.date(time.time())}."
    devices = [
        each if name == _DEVICE else f"{each} for {name.split('.')[1]}"
        for name, each in run.settings.items()
        if name == _DEVICE or name.startswith("policies.") and name.endswith(_DEVICE)
    ]
    if devices:
        note = f"The learner used {_text(', '.join(devices))}. {note}"
    if not run.machine:
        note += " The versions and the machine are those of this report."
    return _section(
        "Versions and machine",
        f'{html_parts.table(("", ""), rows)}<p class="soft">{note}</p>',
    )
