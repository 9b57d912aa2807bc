"""What a person sees, on a terminal and elsewhere."""

import io

import pytest
import rich.console

from impala_mp.monitoring import display

_RECORD = {
    "agent_steps": 1200,
    "episode/return_mean": 12.3456,
    "episode/return_min": -1.0,
    "episode/return_max": 21.0,
    "throughput/agent_steps_per_sec": 54321.9,
    "throughput/env_frames_per_sec": 217287.6,
    "throughput/updates_per_sec": 42.42,
    "lag/mean": 1.25,
    "lag/max": 3.0,
    "time/learner_wait": 0.25,
    "time/actor_environment": 0.5,
    "health/processes_alive": 4,
    "health/processes_total": 4,
    "health/restarts": 2,
    "health/committed": 1000,
    "health/learned": 990,
    "health/discarded": 4,
    "health/in_flight": 6,
}


def _console(terminal):
    return rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=120, height=30
    )


def test_every_number_has_its_place():
    text = "\n".join(f"{label}: {value}" for label, value in display.rows(_RECORD))
    for expected in (
        "12.35 (-1.00 … 21.00)",
        "54,322 agent steps/s, 217,288 frames/s, 42.4 updates/s",
        "1.2 updates, at most 3",
        "wait 25 %",
        "environment 50 %",
        "4 of 4 alive, 2 restarts",
        "1,000 = 990 learned + 4 discarded + 6 in flight",
    ):
        assert expected in text


def test_an_unknown_value_is_a_dash():
    for _, value in display.rows({"agent_steps": 0}):
        assert "nan" not in value
        assert "–" in value


def test_plain_lines_where_there_is_no_terminal():
    console = _console(terminal=False)
    with display.Display("Catch", 2000, console) as screen:
        screen.message("Resuming from [update 3].")
        screen.update(_RECORD)
        screen.update({**_RECORD, "agent_steps": 1300})  # too soon; shown at the end
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Resuming from [update 3]."
    assert lines[1].startswith("agent steps 1,200 of 2,000 (60 %)  return 12.35")
    assert lines[2].startswith("agent steps 1,300")
    assert len(lines) == 3


def test_the_live_display_draws_on_a_terminal():
    console = _console(terminal=True)
    with display.Display("Catch", 2000, console) as screen:
        screen.update(_RECORD, "The learner is the limit.")
    text = console.file.getvalue()
    assert "The learner is the limit." in text
    assert "1,200/2,000 steps" in text
    assert "990 learned" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-6, "1e-06"),
        (-0.0042, "-0.0042"),
        (0.0, "0.00"),
        (0.5, "0.50"),
        (1.234, "1.23"),
    ],
)
def test_small_returns_are_not_shown_as_zero(value, text):
    assert display._number(value, 2) == text
