"""Closing of environments: bounded in time, and harmless if it fails.

An environment may have started programs, such as a simulator, that end with its
close() only. So every copy is closed, even if another one fails.
"""

import contextlib
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gymnasium

from impala_mp import errors
from impala_mp.config import user_code

LIMIT_SECS = 5.0  # for all copies of one environment
_MIN_SECS = 0.2  # for each copy after a slow one
_AGAIN_SECS = 1.0  # until the next attempt to interrupt it
_EFFECT = "Programs that it has started may still run."


class _TooLate(BaseException):
    """Interrupts a close() that takes too long."""


def close(envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
    """Closes a vector environment once, each of its copies separately.

    Errors are printed. The time is limited in the main thread, where signals arrive.
    """
    inner, end = envs.unwrapped, time.monotonic() + LIMIT_SECS
    if inner.closed:
        return
    try:
        if isinstance(inner, gymnasium.vector.SyncVectorEnv):
            close_each(inner.envs, end)
            inner.envs = []
        _close(envs, inner, end)
    finally:
        inner.closed = True  # otherwise its __del__ would close it again


@contextlib.contextmanager
def if_failing() -> Iterator[list[Any]]:
    """Yields a list for single copies, which are closed if its context fails."""
    made: list[Any] = []
    try:
        yield made
    except BaseException:
        close_each(made)
        raise


def close_each(envs: Iterable[Any], end: float = 0.0) -> None:
    """Closes single copies, until the monotonic time `end` if it is given."""
    end = end or time.monotonic() + LIMIT_SECS
    for env in envs:
        _close(env, getattr(env, "unwrapped", env), end)


def _close(env: Any, inner: Any, end: float) -> None:
    name = f"close() of {type(inner).__name__}"
    try:
        with _limited(max(_MIN_SECS, end - time.monotonic())):
            env.close()
    except errors.Interrupted:
        raise
    except _TooLate as error:
        place = user_code.where(error)
        _print(
            f"{name} did not return within {LIMIT_SECS:g} s and was interrupted"
            f"{place}. {_EFFECT}"
        )
    except (Exception, SystemExit) as error:
        _print(f"{name} failed: {user_code.explain(error)}. {_EFFECT}")


@functools.cache
def _print(sentence: str) -> None:
    """Prints a sentence, once."""
    print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _limited(secs: float) -> Iterator[None]:
    """Raises _TooLate in its context after `secs`, and again if that is swallowed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(number: int, frame: Any) -> None:
        raise _TooLate

    old: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, on_alarm)
    left, interval = signal.setitimer(signal.ITIMER_REAL, secs, _AGAIN_SECS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if old is None else old)
        signal.setitimer(signal.ITIMER_REAL, left, interval)  # of the environment
