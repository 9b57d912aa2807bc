"""Report of a run as one HTML page without scripts and outside resources."""

import os
from typing import Any

from impala_mp import errors
from impala_mp.config import by_value
from impala_mp.monitoring import (
    html_parts,
    report,
    report_style,
    report_tables,
    svg_charts,
)
from impala_mp.storage import evaluations, files

_NAME = "report.html"
_MAX_NUMBERS = 24  # of the user's numbers; a page of more is not read
_MAX_ROWS = 60  # of a table; the newest ones
_NUMBERS = (  # keys of metrics, with their name on the page
    ("policy/entropy", "entropy (nats)"),
    ("value/explained_variance", "explained variance"),
    ("q/mean", "Q of the actions taken"),
    ("q/overestimation", "Q minus known returns"),
    ("vtrace/kl", "KL to actors (nats)"),
    ("vtrace/effective_sample_size", "effective samples"),
    ("loss/gradient_norm", "gradient norm"),
    ("loss/learning_rate", "learning rate"),
    ("loss/baseline", "baseline loss"),
    ("loss/td", "TD loss"),
    ("loss/quantile", "quantile loss"),
    ("lag/mean", "policy lag (updates)"),
    ("episode/length_mean", "length of a game"),
    ("throughput/agent_steps_per_sec", "agent steps/s"),
    ("time/learner_wait", "learner's wait (share)"),
    ("memory/actor_mib", "memory of the actors (MiB)"),
)
_text, _section = html_parts.text, html_parts.section
_number, _whole = html_parts.number, html_parts.whole
_GOOD = ("finished", "stopped", "running")


def write(folder: str, output: str | None = None) -> str:
    """Writes the report of a run and returns its path; default: report.html in it.

    Raises:
      BadInput: there is no run, or the report cannot be written.
    """
    if output:
        files.check_place("output", output)
    path = output or os.path.join(folder, _NAME)
    page = render(report.read(folder))
    try:
        files.write_atomically(path, page, durable=False)
    except OSError as error:
        raise errors.BadInput(
            f"{path} cannot be written ({error}). Name another file by --output=FILE."
        ) from error
    return path


def render(run: report.Run) -> str:
    """Returns the whole page."""
    name = by_value.without_digests(run.settings.get("environment.id") or "")
    title = _text(name or run.folder)
    parts = [
        _header(run, title),
        _tiles(run),
        _findings(run),
        _curve(run),
        _smalls(run),
        _evaluations(run),
        report_tables.render(run),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{report_style.STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _header(run: report.Run, title: str) -> str:
    get = run.settings.get
    facts = [
        f"algorithm {_text(get('algorithm'))}" if get("algorithm") else "",
        f"seed {_text(get('seed'))}" if "seed" in run.settings else "",
        _text(run.folder),
        f"last sign of life {html_parts.date(run.health.time)}"
        if run.health.time
        else "",
        f"started {run.starts} times" if run.starts > 1 else "",
    ]
    state, well = run.health.state or "state unknown", run.health.state in _GOOD
    kind = "" if not run.health.state else "good" if well else "bad"
    steps, total = _last(run, "agent_steps"), get("total_agent_steps")
    progress = ""
    if files.is_number(steps) and files.is_number(total) and total > 0:
        share = min(1.0, max(0.0, steps / total))
        progress = (
            f'<div class="bar"><div style="width:{100 * share:.1f}%"></div></div>'
            f'<p class="soft">{steps:,.0f} of {total:,.0f} agent steps'
            f" ({100 * share:.0f} %)</p>"
        )
    notes = "".join(f'<p class="soft">{_text(note)}</p>' for note in run.notes)
    return (
        f'<header><div class="top"><h1>{title}</h1><span class="pill {kind}">'
        f'{_text(state)}</span></div><p class="soft">'
        f"{' · '.join(filter(None, facts))}</p>{progress}{notes}</header>"
    )


def _last(run: report.Run, key: str) -> Any:
    return next((r[key] for r in reversed(run.records) if key in r), None)


def _tiles(run: report.Run) -> str:
    tiles = [
        (
            f"final evaluation, {policy}",
            _number(each["mean"]),
            _interval(each),
        )
        for policy, each in run.final.items()
    ]
    best = _best(run)
    if best:
        at = f"at {_whole(best.get('agent_steps'))} steps, {_interval(best)}"
        name = "best checkpoint" if run.has_best else "best evaluation"
        tiles.append((name, _number(best["mean"]), at))
    low, high = (_number(_last(run, f"episode/return_{n}")) for n in ("min", "max"))
    mean = _last(run, "episode/return_mean")
    tiles.append(("return of the last 100 games", _number(mean), f"{low} to {high}"))
    steps, secs = _last(run, "agent_steps"), _last(run, "time_secs")
    if files.is_number(steps) and files.is_number(secs) and secs > 0:
        updates = f"{_whole(_last(run, 'updates'))} updates"
        tiles.append(("agent steps/s", _number(steps / secs), "mean of the run"))
        tiles.append(("time of learning", html_parts.duration(secs), updates))
    cards = "".join(
        f'<div class="card tile"><span class="name">{_text(name)}</span>'
        f'<b>{value}</b><span class="name">{detail}</span></div>'
        for name, value, detail in tiles
    )
    return f'<section class="grid tiles" style="margin-top:22px">{cards}</section>'


def _best(run: report.Run) -> dict[str, Any] | None:
    """Returns the evaluation of the policy that was best in training.

    The best of many evaluations was also lucky. Games on other seeds give its return,
    if they were played.
    """
    chosen = evaluations.chosen(run.evaluations)
    compared = [
        each
        for each in run.evaluations
        if each["purpose"] == evaluations.PROGRESS
        and each["policy"] != evaluations.RANDOM
    ]
    if not compared:
        return None
    best = max(compared, key=lambda each: float(each["mean"]))
    return chosen[best["policy"], best["agent_steps"]]


def _interval(each: dict[str, Any]) -> str:
    """Returns the 95 % interval of an evaluation and its number of games."""
    games = f"{_whole(each.get('episodes'))} games"
    if not all(files.is_number(each.get(name)) for name in ("low", "high")):
        return games
    return f"{_number(each['low'])} to {_number(each['high'])} (95 %), {games}"


def _findings(run: report.Run) -> str:
    if not run.findings:
        what = "no records yet" if not run.records else "no warnings in the records"
        return _section("Warnings", f'<p class="soft">There are {what}.</p>')
    cards = "".join(
        f'<div class="card finding {each.severity}"><b>{each.severity}</b>'
        f"{_text(each.sentence)}<br>"
        f'<span class="soft">{_text(each.cure)}</span></div>'
        for each in run.findings
    )
    return _section("Warnings", cards)


def _curve(run: report.Run) -> str:
    prefix = "episode/return_"
    line = _points(run, f"{prefix}mean")
    dots = [_dot(each) for each in evaluations.chosen(run.evaluations).values()]
    if not line and not dots:
        return _section("Learning curve", '<p class="soft">No game has ended yet.</p>')
    band = [
        (r["agent_steps"], r[f"{prefix}min"], r[f"{prefix}max"])
        for r in run.records
        if f"{prefix}min" in r and f"{prefix}max" in r
    ]
    levels = [
        (each["mean"], "random policy")
        for each in run.evaluations
        if each["policy"] == evaluations.RANDOM
    ][:1]
    changes = [e for e in run.journal if files.is_number(e.get("agent_steps"))]
    marks = [
        *(svg_charts.Mark(x, "resumed") for x in svg_charts.thinned(run.resumes)),
        *(
            svg_charts.Mark(each["agent_steps"], _change(each))
            for each in svg_charts.thinned(changes)
        ),
    ]
    chart = svg_charts.curve(line, band, dots, levels, marks, "return by agent steps")
    keys = [
        ("", "mean return of the last 100 games"),
        ("k-band", "lowest to highest of them") if band else None,
        ("k-dot", "evaluation, with its 95 % interval") if dots else None,
        ("k-mark", "resume or change") if marks else None,
    ]
    legend = "".join(f'<span class="{k[0]}">{k[1]}</span>' for k in keys if k)
    figure = (
        f'<figure class="card"><div class="key">{legend}</div>'
        f'<div class="scroll">{chart}</div></figure>'
    )
    return _section("Learning curve", figure)


def _change(each: dict[str, Any]) -> str:
    name, before, after = (each.get(key) for key in ("name", "from", "to"))
    return f"{name}: {before} → {after}"


def _dot(each: dict[str, Any]) -> svg_charts.Dot:
    x, y = each["agent_steps"], each["mean"]
    low, high = (
        value if files.is_number(value) else float("nan")
        for value in (each.get("low"), each.get("high"))
    )
    text = f"{_number(y)} at {_whole(x)} steps, {each['policy']}".rstrip(", ")
    return svg_charts.Dot(x, y, low, high, text)


def _points(run: report.Run, key: str) -> list[tuple[float, float]]:
    return [
        (r["agent_steps"], r[key]) for r in run.records if files.is_number(r.get(key))
    ]


def _smalls(run: report.Run) -> str:
    every = {key for record in run.records for key in record}
    task = "episode/return_mean/"
    tasks = [(k, f"return, {k.removeprefix(task)}") for k in every if task in k]
    custom = [
        (key, key.removeprefix("env/"))
        for key in sorted(every)
        if key.startswith("env/") and not key.endswith(("/min", "/max"))
    ]
    cards = []
    for key, name in (*sorted(tasks), *custom[:_MAX_NUMBERS], *_NUMBERS):
        points = _points(run, key)
        if len(points) < 2:
            continue
        clip = run.settings.get("optimizer.clip_norm")
        clips = key == "loss/gradient_norm" and files.is_number(clip) and clip > 0
        level = clip if clips else float("nan")
        end = run.records[-1]["agent_steps"]
        chart = svg_charts.small(points, end, f"{name} by agent steps", level)
        low, high = (_number(f(v for _, v in points)) for f in (min, max))
        cards.append(
            f'<figure class="card"><p><span class="name">{_text(name)}</span>'
            f"<b>{_number(points[-1][1])}</b></p>"
            f'{chart}<span class="name">{low} to {high}</span></figure>'
        )
    grid = f'<div class="grid smalls">{"".join(cards)}</div>' if cards else ""
    return _section("Diagnostics", grid)


def _evaluations(run: report.Run) -> str:
    header = ("purpose", "actions", ">agent steps", ">mean return", ">95 % interval")
    header += (">lowest", ">highest", ">games")
    last = [{**each, "purpose": "final", "policy": p} for p, each in run.final.items()]
    before = [e for e in run.evaluations if e.get("purpose") != "final" or not last]
    rows = []
    for each in [*before, *last][-_MAX_ROWS:]:
        known = all(files.is_number(each.get(name)) for name in ("low", "high"))
        interval = f"{_number(each['low'])} to {_number(each['high'])}" if known else ""
        rows.append(
            (
                _text(each.get("purpose", "")),
                _text(each.get("policy", "")),
                _whole(each.get("agent_steps")),
                _number(each.get("mean")),
                interval or "–",
                _number(each.get("min")),
                _number(each.get("max")),
                _whole(each.get("episodes")),
            )
        )
    return _section("Evaluations", html_parts.table(header, rows))
