"""Relay of an actor host: the engine's process, which starts the host's.

The engine's process imports no torch. One import in the fork server is enough for the
host and its actors, so that a killed host is back sooner.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from impala_mp.config import fields
from impala_mp.runtime import actor_host, fork_server, launch, life_pipe
from impala_mp.transport import host_messages


class Relay:
    """Passes questions to the host, and ends with it."""

    def __init__(self, task: dict[str, Any], leave: Callable[[], None]) -> None:
        """Starts the host.

        Args:
          task: fields of `Task`.
          leave: ends this process for good, when the host has left.
        """
        launch.set_environment()  # before torch is imported, by the fork server
        self._leave = leave
        settings = fields.from_json(task["config"]).health
        limit = threading.Timer(settings.start_secs + settings.reset_secs, _give_up)
        limit.daemon = True
        limit.start()
        fork_server.start()
        self._life = life_pipe.LifePipe()
        self._connection, there = multiprocessing.Pipe()
        self._host: Any = multiprocessing.get_context("forkserver").Process(
            target=actor_host.serve,
            args=(host_messages.Task(**task), os.getpid(), there, self._life),
        )
        with _no_script():
            self._host.start()
        limit.cancel()
        there.close()
        self._end = threading.Thread(target=self._end_with_host, daemon=True)
        self._end.start()

    def take(self, question: dict[str, Any], parameters: Any = None) -> dict[str, Any]:
        """Returns the host's answer; both messages are those of `host_messages`."""
        try:
            self._connection.send((question, parameters))
            reply: dict[str, Any] = self._connection.recv()
            return reply
        except (OSError, EOFError):
            self._end.join()  # ends this process
            raise

    def _end_with_host(self) -> None:
        self._host.join()
        if self._host.exitcode == 0:
            self._leave()
        os._exit(1)


@contextlib.contextmanager
def _no_script() -> Iterator[None]:
    """Hides the engine's script: a host and its actors would import it, and its all."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _give_up() -> None:
    print("The fork server of this host did not start in time.", flush=True)
    os._exit(1)
