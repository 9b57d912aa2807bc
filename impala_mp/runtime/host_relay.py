"""Relay of an actor host: the engine's process, which starts the host's.

The engine's process imports no torch. One import in the fork server is enough for the
host and its actors, so that a killed host is back sooner.
"""

import atexit
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import spawn
from typing import Any

from impala_mp.runtime import fork_server, launch, life_pipe
from impala_mp.transport import host_messages

_LEAVE_SECS = 10.0  # for the engine to end this process


class Relay:
    """Passes questions to the host. Both processes end together."""

    def __init__(self, task: dict[str, Any], leave: Callable[[], None]) -> None:
        """Starts the host.

        Args:
          task: fields of `Task`.
          leave: asks the engine to end this process for good; the host has left.

        Raises:
          RuntimeError: the host did not start.
          OSError: the fork server did not; for example, the disk is full.
        """
        launch.set_environment()  # before torch is imported, by the fork server
        fork_server.start()
        from impala_mp.config import fields  # while the fork server imports
        from impala_mp.runtime import actor_host

        self._leave = leave
        self._life = life_pipe.LifePipe()
        self._connection, there = multiprocessing.Pipe()
        self._host: Any = multiprocessing.get_context("forkserver").Process(
            target=actor_host.serve,
            args=(host_messages.Task(**task), os.getpid(), there, self._life),
        )
        settings = fields.from_json(task["config"]).health
        limit = threading.Timer(settings.start_secs, self._give_up)
        limit.daemon = True
        limit.start()
        try:
            with _no_script():
                self._host.start()
            there.close()
            self._connection.recv()
        except (OSError, EOFError) as error:
            raise RuntimeError(
                f"the processes of this host did not start ({error!r}). The logs of"
                " Ray's worker on its node have the reason."
            ) from error
        finally:
            limit.cancel()
        # Before multiprocessing's, which waits for the host.
        atexit.register(self._life.close)
        self._end = threading.Thread(target=self._end_with_host, daemon=True)
        self._end.start()

    def _give_up(self) -> None:
        """Makes a start that takes too long fail."""
        self._life.close()
        fork_server.kill()

    def take(
        self, questions: list[dict[str, Any]], parameters: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """Returns the host's answers; see `actor_host.ActorHost.take`."""
        try:
            self._connection.send((questions, parameters))
            replies: list[dict[str, Any]] = self._connection.recv()
            return replies
        except (OSError, EOFError):
            self._end.join()  # this process ends
            raise

    def _end_with_host(self) -> None:
        self._host.join()
        if self._host.exitcode == 0:
            with contextlib.suppress(Exception):
                self._leave()
                time.sleep(_LEAVE_SECS)
        os._exit(1)


@contextlib.contextmanager
def _no_script() -> Iterator[None]:
    """Starts processes that do not run the engine's script, with all its imports."""
    prepare = spawn.get_preparation_data

    def without_script(name: str) -> dict[str, Any]:
        data = prepare(name)
        return {key: data[key] for key in data if not key.startswith("init_main_")}

    spawn.get_preparation_data = without_script
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare
