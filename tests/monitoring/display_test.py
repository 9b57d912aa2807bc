"""What a person sees of a live run, on a terminal and elsewhere."""

import io
import json
import sys

import pytest
import rich.console

from impala_mp.monitoring import display, health, run_state

_RECORD = {
    "agent_steps": 1200,
    "updates": 60,
    "time_secs": 10.0,
    "episode/return_mean": 12.3456,
    "episode/return_min": -1.0,
    "episode/return_max": 21.0,
    "throughput/agent_steps_per_sec": 120.0,
    "lag/mean": 1.25,
    "health/processes_alive": 4,
    "health/processes_total": 4,
    "health/restarts": 0,
}
_FACTS = run_state.Facts("Catch", 2000)
_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[?1049l"


def _console(terminal, **environ):
    return rich.console.Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=100,
        height=30,
        _environ=environ,
    )


def test_plain_lines_where_there_is_no_terminal():
    console = _console(terminal=False)
    with display.Display(_FACTS, console) as screen:
        screen.message("Resuming from [update 3].")
        screen.update(_RECORD)
        screen.update({**_RECORD, "agent_steps": 1300})  # too soon; shown at the end
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Resuming from [update 3]."
    stamp, line = lines[1][:19], lines[1][21:]
    assert stamp.count(":") == 2
    assert line == (
        "60.0 %  1,200 of 2,000 steps  0:07 left  return 12.35  120 steps/s  lag 1.2"
    )
    assert "65.0 %  1,300 of 2,000 steps" in lines[2]
    assert len(lines) == 3


def test_a_plain_line_names_trouble_and_leaves_out_the_unknown():
    state = run_state.RunState(_FACTS, display.history.History())
    state.history.add({"agent_steps": 2100, "health/processes_alive": 1})
    assert display.plain(state)[21:] == "100.0 %  2,100 of 2,000 steps"
    state.history.add({"agent_steps": 2200, "health/restarts": 3, "health/bad_data": 2})
    assert display.plain(state).endswith("restarts 3  bad unrolls 2")


def test_a_terminal_that_cannot_move_its_cursor_has_plain_lines():
    console = _console(terminal=True, TERM="dumb")
    with display.Display(_FACTS, console) as screen:
        screen.update(_RECORD)
    assert "60.0 %  1,200 of 2,000 steps" in console.file.getvalue()
    assert "\x1b" not in console.file.getvalue()


def test_the_dashboard_is_on_the_alternate_screen():
    console = _console(terminal=True)
    with display.Display(_FACTS, console) as screen:
        screen.message("Resuming from [update 3].")
        print("A line of a library.", file=sys.stderr)
        screen.update(_RECORD, "The learner is the limit.")
        screen._live.refresh()
        text = console.file.getvalue()
        assert text.startswith(_ENTER)
        assert "A line of a library." in text
        assert "60.0% of 2k steps" in text
    live, _, after = console.file.getvalue().partition(_LEAVE)
    assert live.count("\n") == 29  # one frame of 30 rows: the screen never scrolls
    for expected in ("Resuming from [update 3].", "A line of a library.", "return  "):
        assert after.count(expected) == 1, expected
    assert sys.stderr is not screen


def test_the_dashboard_reaches_the_terminal_although_prints_are_taken(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    file = sys.stdout
    with display.Display(_FACTS) as screen:
        screen.update(_RECORD)
        screen._live.refresh()
        assert "60.0% of 2k steps" in file.getvalue()


def test_processes_that_are_not_well_are_shown():
    console = _console(terminal=True)
    status = health.Status("actor", 3, 7, 0, "hung", 0, 12.3, "")
    with display.Display(_FACTS, console) as screen:
        screen.update(_RECORD)
        screen.processes([status._replace(state="running")])
        screen._live.refresh()
        assert "actor 3" not in console.file.getvalue()
        screen.processes([status])
        screen._live.refresh()
        assert "actor 3: hung" in console.file.getvalue()


def test_the_curve_of_earlier_runs_is_shown(tmp_path):
    line = json.dumps({**_RECORD, "agent_steps": 100, "episode/return_mean": -77.0})
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    console = _console(terminal=True)
    facts = _FACTS._replace(folder=str(tmp_path))
    with display.Display(facts, console) as screen:
        screen.update(_RECORD)
    assert "-77.00" in console.file.getvalue()


def test_messages_are_in_the_log_with_their_time(tmp_path):
    log = tmp_path / "supervisor.log"
    for terminal in (True, False):
        with display.Display(_FACTS, _console(terminal), str(log)) as screen:
            screen.message("actor 0 was restarted.")
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert all(line[19:] == " actor 0 was restarted." for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_ascii(encoding):
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding)  # strict: it would raise
    console = rich.console.Console(
        file=file, force_terminal=True, width=100, height=30, _environ={}
    )
    facts = _FACTS._replace(environment="Spiel-Ä-世界")
    with display.Display(facts, console) as screen:
        screen.update(_RECORD)
        screen._live.refresh()
    file.flush()
    assert rb"Spiel-\xc4-\u4e16\u754c" in buffer.getvalue()
    assert buffer.getvalue().isascii()
