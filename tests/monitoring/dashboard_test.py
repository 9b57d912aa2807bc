"""The dashboard fits every terminal, and shows what there is."""

import math
import random

import pytest

from impala_mp.monitoring import dashboard, history, run_state

_SIZES = [(80, 24), (120, 40), (200, 50), (60, 15), (71, 19), (40, 10), (24, 5), (9, 2)]
_FACTS = run_state.Facts("KeyDoor-v0", 10**6, "vtrace", 20613, 0, "runs/dict")
_FULL = {
    "episode/return_min": 1.33,
    "episode/return_max": 1.49,
    "episode/length_mean": 8.6,
    "episode/count": 1000,
    "lag/mean": 0.8,
    "lag/max": 3,
    "time/learner_wait": 0.84,
    "time/learner_update": 0.16,
    "time/actor_environment": 0.49,
    "time/actor_inference": 0.23,
    "time/actor_wait": 0.01,
    "time/environment_step_ms": 0.11,
    "time/inference_step_ms": 0.03,
    "health/processes_alive": 4,
    "health/processes_total": 4,
    "health/restarts": 0,
    "memory/actor_mib": 400.0,
    "memory/learner_mib": 220.0,
    "policy/entropy": 0.41,
    "value/explained_variance": 0.97,
    "vtrace/kl": 0.0004,
    "loss/gradient_norm": 0.025,
    "loss/learning_rate": 9.4e-4,
    "env/success_rate": 1.0,
    "env/success_rate/min": 0.0,
    "evaluation/return_mean": 1.44,
    "evaluation/return_low": 1.41,
    "evaluation/return_high": 1.47,
}


def _state(records=100, facts=_FACTS, **more):
    found = history.History()
    for i in range(1, records + 1):
        step = {"agent_steps": 7700 * i, "updates": 24 * i, "time_secs": 0.94 * i}
        found.add({**step, **_FULL, "episode/return_mean": i / 70, **more})
    sentence = "The learner waited 84 % of its time for data. " * 3
    return run_state.RunState(facts, found, sentence, 0.0, 12.3)


def _lines(*args, **kwargs):
    return [line.plain for line in dashboard.lines(*args, **kwargs)]


def _fits(state, width, height, ascii_only=False, **kwargs):
    lines = dashboard.lines(state, width, height, ascii_only, **kwargs)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    text = "\n".join(line.plain for line in lines)
    assert text.isascii() or not ascii_only
    return text


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("size", _SIZES)
def test_it_fits_exactly(size, ascii_only):
    width, height = size
    tasks = {f"episode/return_mean/task{i}": float(i) for i in range(30)}
    for state in (_state(), _state(0), _state(1), _state(**tasks)):
        for sick in ([], ["actor 3: hung, 世界"] * 20):
            messages = ["word " * 50, "two\nlines", "世" * 90] * 9
            text = _fits(state, *size, ascii_only, sick=sick, messages=messages)
            box = text.splitlines()[0]
            assert len(box) == width or width < 24 or height < 5


@pytest.mark.parametrize("seed", range(20))
def test_it_fits_any_terminal_and_any_record(seed):
    rng = random.Random(seed)
    values = [0.0, -0.0, 1e-9, 1.0, 1e299, -1e299, 123456.7]
    for _ in range(20):
        keys = rng.sample(list(_FULL), rng.randrange(len(_FULL)))
        record = {key: rng.choice(values) for key in keys}
        facts = _FACTS._replace(
            environment=rng.choice(["", "x" * 300, "世界" * 20, "a\x1b[31m\nb"]),
            folder=rng.choice(["", "r/" * 99]),
            total_agent_steps=rng.choice([0, 1, 10**15]),
        )
        state = run_state.RunState(facts, history.History())
        for i in range(3):
            state.history.add({"agent_steps": i + 1, **record})
        text = _fits(state, rng.randrange(1, 230), rng.randrange(1, 60))
        assert "\x1b" not in text
        assert "nan" not in text


def test_the_mock_up():
    lines = _lines(_state(), 80, 24)
    text = "\n".join(lines)
    for expected in (
        "KeyDoor-v0 · vtrace · 20,613 parameters · seed 0                   runs/dict",
        "77.0% of 1M steps  0:28 left",
        "return  1.43  ",
        "1.33 … 1.49",
        "best 1.44 at 7.7k",
        "eval 1.44 ±.03",
        "limit: the actors; faster environment helps most (0.11 ms a step)",
    ):
        assert expected in text, expected
    cells = " ".join(text.replace("│", " ").split())
    for expected in (
        "Learning Speed Run",
        "entropy 0.41 nats steps/s 8.19k elapsed 1:34",
        "expl. var. 0.97 updates/s 25.5 processes 4 of 4",
        "KL 4.0e-4 learner 16 % busy restarts 0",
        "grad norm 0.025 env / actor 49 % checkpoint 12 s ago",
        "learning rate 9.4e-4 inference 23 % memory 620 MiB",
        "ep. length 8.6 policy lag 0.8, max 3 success 1.00",
    ):
        assert expected in cells, expected
    assert sum("█" in line for line in lines) >= 5


def test_it_grows_with_the_terminal():
    tasks = {f"episode/return_mean/{name}": 2.0 for name in ("pong", "breakout")}
    state = _state(**tasks, **{"memory/device_mib": 12345.0})
    small, large = ("\n".join(_lines(state, *s)) for s in ((80, 24), (120, 40)))
    for expected in ("Tasks", "breakout", "success rate", "GPU memory", "actors wait"):
        assert expected in large
    assert "breakout" not in small
    wide = _lines(state, 200, 50)
    assert any("Learning" in line and "Tasks" in line for line in wide)


def test_trouble_is_shown_in_red():
    state = _state(**{"health/processes_alive": 3, "health/updates_skipped": 9})
    lines = dashboard.lines(state, 80, 24, sick=["actor 3: hung"])
    red = [
        line.plain[span.start : span.end].strip()
        for line in lines
        for span in line.spans
        if "red" in str(span.style)
    ]
    assert {"3 of 4", "9", "actor 3: hung"} <= set(red)


def test_an_ended_run_has_no_time_left_and_no_dead_processes():
    state = _state(**{"health/processes_alive": 1})
    text = "\n".join(_lines(state._replace(is_running=False), 80, 24))
    assert "left" not in text
    assert "1 of 4" not in text


def test_before_the_first_game():
    text = "\n".join(_lines(_state(0), 80, 24))
    assert "starting" in text
    state = run_state.RunState(_FACTS, history.History())
    state.history.add({"agent_steps": 10})
    assert "no game has ended yet" in "\n".join(_lines(state, 80, 24))
    assert not math.isnan(state.share())
