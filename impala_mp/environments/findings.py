"""Findings of a check: a verdict, its subject and a sentence."""

from typing import NamedTuple

OK, WARNING, FAIL = "ok", "warning", "FAIL"


class Finding(NamedTuple):
    """One line of a report."""

    verdict: str  # OK, WARNING or FAIL
    subject: str
    text: str
