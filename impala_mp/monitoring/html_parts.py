"""Parts of an HTML page: escaped text, numbers, tables, sections."""

import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

from impala_mp.monitoring import evidence
from impala_mp.storage import files


def text(value: Any) -> str:
    """Returns a value of a file as HTML that shows nothing but text."""
    return html.escape(files.visible(str(value)))


def number(value: Any) -> str:
    """Returns a number with three digits; – for anything else."""
    return evidence.number(value) if files.is_number(value) else "–"


def whole(value: Any) -> str:
    """Returns a whole number with commas; – for anything else."""
    return f"{value:,.0f}" if files.is_number(value) else "–"


def duration(secs: Any) -> str:
    """Returns seconds in the unit that suits them."""
    if not files.is_number(secs):
        return "–"
    minutes = secs / 60
    if minutes < 2:
        return f"{secs:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def date(secs: Any) -> str:
    """Returns a time, in seconds since 1970, as a date."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(secs))
    except (OverflowError, TypeError, ValueError, OSError):
        return "–"


def section(title: str, body: str) -> str:
    """Returns a section; "" without a body."""
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; a column whose name begins with > is right-aligned."""
    kinds = [' class="right"' if name[:1] == ">" else "" for name in header]
    heads = "".join(
        f"<th{kind}>{name.lstrip('>')}</th>"
        for kind, name in zip(kinds, header, strict=True)
    )
    lines = [
        "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kinds, row, strict=True))
        for row in rows
    ]
    if not lines:
        return ""
    head = f"<thead><tr>{heads}</tr></thead>" if any(header) else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        '<div class="card scroll table"><table>'
        f"{head}<tbody>{body}</tbody></table></div>"
    )
