"""What is said of a death: the user's line, once a minute."""

import os
import types

import pytest

from impala_mp.runtime import death_reports

_ERROR = "ValueError: no bread (on Monday) ({}:21, in step)"


def _child(error, index=0, steps=6):
    return types.SimpleNamespace(
        seat=types.SimpleNamespace(role="actor", index=index),
        name=f"actor {index}",
        title=f"actor {index} (incarnation 0)",
        reason="was killed by SIGKILL",
        error=error,
        signature=(error.partition(":")[0], error.rpartition(" (")[2]),
        steps=steps,
        log=f"/runs/x/logs/actor-{index}.log",
    )


@pytest.fixture
def told():
    """Sentences, and the reports that make them at a time that tests set."""
    said, now = [], [0.0]
    reports = death_reports.DeathReports(said.append, lambda: now[0])
    return types.SimpleNamespace(said=said, now=now, reports=reports)


def test_the_users_line_comes_first(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told.reports.add(_child(_ERROR.format(tmp_path / "my_game.py")), 0.1)
    assert told.said == [
        "my_game.py:21 in step: ValueError: no bread (on Monday)"
        " (actor 0, step 6; logs/actor-0.log); restart in 0.1 s."
    ]
    elsewhere = _child(_ERROR.format("/elsewhere/my_game.py"))
    assert death_reports.first_line(elsewhere).startswith("/elsewhere/my_game.py:21 in")


def test_a_death_is_reported_from_a_folder_that_was_deleted(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    line = death_reports.first_line(_child(_ERROR.format("/games/my_game.py")))
    assert line.startswith("/games/my_game.py:21 in step: ValueError")


def test_the_same_error_is_said_once_a_minute_with_its_count(told):
    child = _child(_ERROR.format("/a.py"))
    for told.now[0] in (0.0, 1.0, 30.0, 59.9):
        told.reports.add(child, 0.1)
    assert len(told.said) == 1
    told.reports.add(_child(_ERROR.format("/b.py")), 0.1)
    told.reports.add(_child("OSError: gone (/a.py:21, in step)"), 0.1)
    assert len(told.said) == 3  # others are news
    told.now[0] = 60.0
    told.reports.add(child, 0.1)
    assert told.said[-1].endswith(
        "; restart in 0.1 s. It came 4 times since the last report."
    )
    told.now[0] = 121.0
    told.reports.add(child, 0.1)
    assert told.said[-1].endswith("; restart in 0.1 s.")


def test_a_death_without_an_error_is_told_as_it_was(told):
    for error in ("", "(/hanging.py:11, in step)"):
        told.reports.add(_child(error), 0.1)
        assert told.said[-1] == (
            "actor 0 (incarnation 0) was killed by SIGKILL; restart in 0.1 s."
            " See /runs/x/logs/actor-0.log."
        )
    assert len(told.said) == 2


def test_an_error_without_a_place_is_told_too():
    line = death_reports.first_line(_child("MemoryError"))
    assert (
        line == f"MemoryError (actor 0, step 6; {os.path.join('logs', 'actor-0.log')})"
    )
