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


def _expected(history, role, health, draw):
    """The verdict on the last death, from the whole history every time."""
    now = history[-1][0]
    failed = short = 0
    for _, lived_secs, was_running in history:
        failed = 0 if was_running else failed + 1
        short = 1 if lived_secs > 1.0 else short + 1
    deaths = sum(now - time < health.window_secs for time, *_ in history)
    if failed >= health.max_failed_starts:
        return restart_policy.GiveUp(f"failed to start {failed} times in a row")
    if deaths > health.max_restarts[role]:
        return restart_policy.GiveUp(
            f"died {deaths} times within 10 s"
            f" (config.health.max_restarts.{role}={health.max_restarts[role]})"
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
    now, history, kinds = 100.0, [], set()
    for _ in range(200):
        now += rng.choice((0.0, 0.2, 1.0, 3.0, 10.0, 20.0))
        lived_secs = rng.choice((0.0, 0.5, 1.0, 1.5, 60.0))
        was_running = rng.random() < 0.7
        history.append((now, lived_secs, was_running))
        verdict = made.after_death(now, lived_secs, was_running)
        assert verdict == _expected(history, role, health, draw)
        kinds.add(str(verdict)[:14])
    assert len(kinds) > 2  # waits, and both reasons to give up


def test_a_crash_loop_waits_longer_and_longer_and_a_long_life_ends_it():
    made = _policy(max_restarts={"actor": 99})
    waits = [made.after_death(n, 0.5, True).secs for n in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0])
    assert made.after_death(9.0, 1.5, True).secs == pytest.approx(0.1)


def test_the_jitter_takes_away_half_at_most():
    for share, expected in ((0.0, 0.05), (1.0, 0.1)):
        verdict = _policy(jitter=_Steady(share)).after_death(0.0, 5.0, True)
        assert verdict.secs == pytest.approx(expected)


def test_a_window_forgets():
    made = _policy("learner")
    assert isinstance(made.after_death(0.0, 5.0, True), restart_policy.Wait)
    assert isinstance(made.after_death(9.0, 5.0, True), restart_policy.GiveUp)
    assert isinstance(made.after_death(19.0, 5.0, True), restart_policy.Wait)


def test_a_run_forgives_failed_starts_and_at_least_one_is_allowed():
    made = _policy(max_restarts={"actor": 99})
    for _ in range(5):
        made.after_death(0.0, 0.0, False)
        made.after_death(0.0, 0.0, False)
        assert isinstance(made.after_death(0.0, 0.0, True), restart_policy.Wait)
    never = _policy(max_failed_starts=0)
    assert never.after_death(0.0, 0.0, False) == restart_policy.GiveUp(
        "failed to start 1 times in a row"
    )


def test_thousands_of_short_lives_are_no_overflow():
    made = _policy(max_restarts={"actor": 10**6}, max_failed_starts=10**6)
    for _ in range(3000):
        verdict = made.after_death(0.0, 0.0, False)
    assert verdict.secs == pytest.approx(3.0)
