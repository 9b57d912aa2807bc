"""Every copy is closed once, in limited time, whatever the others do."""

import signal
import time

import gymnasium
import pytest

from impala_mp import errors
from impala_mp.environments import catch, closing, factory
from tests.support import builders, closing_environments

_OWN = "tests.support.closing_environments:Recorded"
_NAMES = [_OWN, "Recorded-v0"]
_COPIES = 4


@pytest.fixture(autouse=True)
def _fresh():
    closing_environments.clear()
    closing._print.cache_clear()


def _make(name, count=_COPIES, **kwargs):
    return factory.make(builders.environment_settings(name, **kwargs), count)


@pytest.mark.parametrize("name", _NAMES)
def test_each_copy_is_closed_once(name):
    made = _make(name)
    made.close()
    made.close()
    closing_environments.assert_each_closed_once(_COPIES)


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("raises", "close() of Recorded failed: ValueError: no such window"),
        ("exits", "close() of Recorded failed: SystemExit: 3"),
        ("hangs", "close() of Recorded did not return within 0.3 s"),
        ("hangs twice", "close() of Recorded did not return within 0.3 s"),
    ],
)
def test_a_bad_close_is_told_once_and_harms_nothing(
    name, fault, sentence, monkeypatch, capsys
):
    monkeypatch.setattr(closing, "LIMIT_SECS", 0.3)
    monkeypatch.setattr(closing, "_AGAIN_SECS", 0.3)
    for _ in range(2):
        closing_environments.clear()
        _make(name, fault=fault, at=1).close()
        closing_environments.assert_each_closed_once(_COPIES)
    said = capsys.readouterr().err
    assert said.count(sentence) == 1
    assert "closing_environments.py:" in said  # the user's line
    assert "in close)" in said
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timer_of_the_environment_survives_the_close_of_another():
    old = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 500.0)
    _make(_OWN).close()
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0.0)
    assert 100.0 < left <= 500.0
    assert signal.signal(signal.SIGALRM, old) is not signal.SIG_DFL


@pytest.mark.parametrize("name", _NAMES)
def test_copies_before_one_that_cannot_be_made_are_closed(name):
    with pytest.raises(ValueError, match="no licence"):
        _make(name, fault="no licence", at=2)
    closing_environments.assert_each_closed_once(2)


class _Refused(catch.CatchVectorEnv):
    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}

    def close_extras(self, **kwargs):
        closing_environments.CLOSED.append(self)


gymnasium.register("Refused-v0", vector_entry_point=_Refused)


def test_an_environment_that_is_refused_is_closed():
    with pytest.raises(errors.BadInput, match="autoreset"):
        _make("Refused-v0")
    assert len(closing_environments.CLOSED) == 1


def test_a_signal_passes_through_a_close(monkeypatch):
    def interrupted(self):
        raise errors.Interrupted(130)

    monkeypatch.setattr(closing_environments.Recorded, "close", interrupted)
    with pytest.raises(errors.Interrupted):
        _make(_OWN).close()


def test_many_hanging_copies_share_the_limit(monkeypatch):
    monkeypatch.setattr(closing, "LIMIT_SECS", 0.2)
    monkeypatch.setattr(closing, "_MIN_SECS", 0.01)
    monkeypatch.setattr(closing_environments.Recorded, "close", _sleep)
    closing_environments.clear()
    _make(_OWN, count=8).close()
    assert len(_SLEPT) == 8


_SLEPT = []


def _sleep(self):
    _SLEPT.append(self)
    time.sleep(600)
