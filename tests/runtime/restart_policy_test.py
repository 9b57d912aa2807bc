"""Restart policy: budgets and back-off over random histories, without a process."""

import random
import types

import pytest

from impala_mp.runtime import restart_policy


def _health(**overrides):
    settings = {
        "window_secs": 10.0,
        "backoff_secs": 0.1,
        "max_backoff_secs": 3.0,
        "max_failed_starts": 3,
        "max_deaths_without_progress": 6,
        "max_restarts": {"actor": 4, "learner": 1},
    }
    return types.SimpleNamespace(**{**settings, **overrides})


class _Steady:
    """A random source that always draws the same."""

    def __init__(self, share=1.0):
        self._share = share

    def uniform(self, low, high):
        return low + (high - low) * self._share


def _policy(role="actor", jitter=None, **overrides):
    return restart_policy.RestartPolicy(role, _health(**overrides), jitter or _Steady())


def _expected(history, waits, role, health, draw):
    """The verdict on the last death, from the whole history every time."""
    failed = short = fruitless = poor = 0
    has_run = any(was_running for _, _, was_running, _ in history)
    for _, lived_secs, was_running, num_finished in history:
        failed = 0 if was_running else failed + 1
        short = 1 if was_running and lived_secs > 1.0 else short + 1
        fruitless = 0 if num_finished else fruitless + was_running
        poor = 0 if num_finished >= 10 else poor + 1
    times = [t - sum(waits[:n]) for n, (t, *_) in enumerate(history)]
    deaths = sum(times[-1] - t < health.window_secs for t in times)
    if failed >= health.max_failed_starts and not has_run:
        return restart_policy.GiveUp(f"failed to start {failed} times in a row")
    if deaths > health.max_restarts[role]:
        return restart_policy.GiveUp(
            f"died {deaths} times within 10 s"
            f" (config.health.max_restarts.{role}={health.max_restarts[role]})"
        )
    unit = {"actor": "unroll", "learner": "update"}[role]
    if poor > health.max_restarts[role]:
        return restart_policy.GiveUp(
            f"died {poor} times in a row, each time before a 10th {unit}"
            f" (config.health.max_restarts.{role}={health.max_restarts[role]})"
        )
    if fruitless >= 6:
        return restart_policy.GiveUp(
            f"died {fruitless} times in a row without a finished {unit}"
            " (config.health.max_deaths_without_progress=6)"
        )
    secs = health.backoff_secs
    for _ in range(short - 1):
        secs = min(2 * secs, health.max_backoff_secs)
    return restart_policy.Wait(pytest.approx(draw(0.5, 1.0) * secs))


@pytest.mark.parametrize("role", ["actor", "learner"])
@pytest.mark.parametrize("seed", range(20))
def test_verdicts_equal_those_of_a_naive_twin(seed, role):
    """A policy that gave up still decides, so that one history shows all verdicts."""
    rng = random.Random(seed)
    health = _health()
    made = restart_policy.RestartPolicy(role, health, random.Random(seed))
    draw = random.Random(seed).uniform
    now, history, waits, kinds = 100.0, [], [], set()
    for _ in range(200):
        now += sum(waits[-1:]) + rng.choice((0.0, 0.21, 1.03, 3.07, 9.9, 20.0))
        lived_secs = rng.choice((0.0, 0.5, 1.0, 1.5, 60.0))
        was_running = rng.random() < 0.7
        num_finished = was_running * rng.choice((0, 0, 0, 1, 9, 10, 500))
        history.append((now, lived_secs, was_running, num_finished))
        verdict = made.after_death(*history[-1])
        assert verdict == _expected(history, waits, role, health, draw)
        waits.append(getattr(verdict, "secs", 0.0))
        kinds.add(str(verdict)[:14])
    assert len(kinds) > 2  # waits, and both reasons to give up


def test_a_crash_loop_waits_longer_and_longer_and_a_long_life_ends_it():
    made = _policy(max_restarts={"actor": 99})
    waits = [made.after_death(n, 0.5, True, 10).secs for n in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0])
    assert made.after_death(9.0, 1.5, True, 10).secs == pytest.approx(0.1)


def test_the_jitter_takes_away_half_at_most():
    for share, expected in ((0.0, 0.05), (1.0, 0.1)):
        verdict = _policy(jitter=_Steady(share)).after_death(0.0, 5.0, True, 10)
        assert verdict.secs == pytest.approx(expected)


def test_a_window_forgets():
    made = _policy("learner")
    assert isinstance(made.after_death(0.0, 5.0, True, 10), restart_policy.Wait)
    assert isinstance(made.after_death(9.0, 5.0, True, 10), restart_policy.GiveUp)
    assert isinstance(made.after_death(19.2, 5.0, True, 10), restart_policy.Wait)


def test_a_run_forgives_failed_starts_and_at_least_one_is_allowed():
    made = _policy(max_restarts={"actor": 99})
    for _ in range(5):
        made.after_death(0.0, 0.0, False, 0)
        made.after_death(0.0, 0.0, False, 0)
        assert isinstance(made.after_death(0.0, 0.0, True, 10), restart_policy.Wait)
    never = _policy(max_failed_starts=0)
    assert never.after_death(0.0, 0.0, False, 0) == restart_policy.GiveUp(
        "failed to start 1 times in a row"
    )


def test_a_process_that_has_run_waits_out_an_outage():
    """Its simulator is down for a minute: each start fails, after some seconds."""
    made = _policy(max_restarts={"actor": 20}, max_backoff_secs=30.0)
    made.after_death(0.0, 60.0, True, 500)
    waits = [made.after_death(0.0, 5.0, False, 0).secs for _ in range(10)]
    assert waits[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert sum(waits) > 60.0
    assert made.after_death(99.0, 60.0, True, 500).secs == pytest.approx(0.1)
    lost = [made.after_death(99.0, 5.0, False, 0) for _ in range(25)]
    assert isinstance(lost[-1], restart_policy.GiveUp)


def test_thousands_of_short_lives_are_no_overflow():
    made = _policy(max_restarts={"actor": 10**6}, max_failed_starts=10**6)
    for _ in range(3000):
        verdict = made.after_death(0.0, 0.0, False, 0)
    assert verdict.secs == pytest.approx(3.0)


def test_a_loop_of_short_lives_spends_the_budget_however_long_it_waits():
    """10 s of window, 3 s of wait after each life: they would never be 5 deaths."""
    made, now, verdicts = _policy(), 0.0, []
    while not verdicts or isinstance(verdicts[-1], restart_policy.Wait):
        verdicts.append(made.after_death(now, 0.5, True, 10))
        now += 0.5 + getattr(verdicts[-1], "secs", 0.0)
        assert len(verdicts) < 50
    assert len(verdicts) == 5
    assert "died 5 times within 10 s" in verdicts[-1].reason


def test_lives_that_finish_nothing_are_few():
    made = _policy("evaluator", max_restarts={"evaluator": 99})
    for _ in range(5):
        assert isinstance(made.after_death(0.0, 60.0, True, 0), restart_policy.Wait)
    assert isinstance(made.after_death(0.0, 60.0, True, 10), restart_policy.Wait)
    for _ in range(5):
        made.after_death(0.0, 60.0, False, 0)  # counted as failed starts only
        assert isinstance(made.after_death(0.0, 60.0, True, 0), restart_policy.Wait)
    assert made.after_death(0.0, 60.0, True, 0) == restart_policy.GiveUp(
        "died 6 times in a row without a finished evaluation"
        " (config.health.max_deaths_without_progress=6)"
    )


def test_a_loop_of_long_lives_with_little_finished_ends():
    """Each life is longer than the window: by time they would never be 5 deaths."""
    made = _policy()
    for life in range(4):
        verdict = made.after_death(60.0 * life, 60.0, True, 9)
        assert isinstance(verdict, restart_policy.Wait)
    assert made.after_death(240.0, 60.0, True, 9) == restart_policy.GiveUp(
        "died 5 times in a row, each time before a 10th unroll"
        " (config.health.max_restarts.actor=4)"
    )
    assert isinstance(made.after_death(300.0, 60.0, True, 10), restart_policy.Wait)
