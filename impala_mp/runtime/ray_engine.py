"""Ray: places actor hosts on nodes, replaces them, and carries the calls.

The only module that imports Ray, an extra. Runs in the receiver.
"""

import collections
import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import ray
from ray import exceptions

from impala_mp.transport import doorbell, host_messages

_NOTICE_SECS = 1.0  # between two looks for nodes that are to end
# Ray's own, in milliseconds: a call to a host that died fails in 0.3 s instead of 2.
_SETTINGS = {
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_core_worker_internal_heartbeat_ms": "100",
}
_INLINE_BYTES = 100_000  # of an argument; a larger one goes through the object store


class Answer(NamedTuple):
    """End of a call to a host: a reply for each policy, or an error."""

    seat: int
    number: int  # of the call
    replies: tuple[host_messages.Reply, ...]  # none with an error
    error: str = ""
    is_gone: bool = False  # the host's process is gone, and will not come back


class Host:
    """Ray's process of a host, on a node."""

    def __init__(self, task: dict[str, Any]) -> None:
        # The code of a host starts processes; the receiver is started as they are.
        code = importlib.import_module("impala_mp.runtime.host_relay")
        self._host = code.Relay(task, _leave_for_good)

    def take(
        self, questions: list[dict[str, Any]], *parameters: Any
    ) -> list[dict[str, Any]]:
        """Answers the receiver."""
        place = ray.get_runtime_context().get_node_id()
        replies = self._host.take(questions, parameters)
        return [{**reply, "place": place} for reply in replies]


def _leave_for_good() -> None:
    """Ends this process, the relay of a host, so that Ray does not start it again."""
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class Engine:
    """Hosts by seat: at most one call to each at a time."""

    def __init__(self, address: str, namespace: str, cores: int) -> None:
        """`cores` are those that a host asks for; 0: those of the smallest node."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        with _same_signals():
            ray.init(
                address=address,
                namespace=namespace,
                log_to_driver=False,
                configure_logging=False,
            )
        self._namespace = namespace
        self.cores = cores or smallest_node(ray.nodes())
        self._hosts: dict[int, Any] = {}
        self.bell = doorbell.Doorbell()  # rings when a call ends
        self._done: collections.deque[tuple[int, int, Any]] = collections.deque()
        # The newest parameters, and where they are, by policy.
        self._shipped: dict[int, tuple[Any, Any]] = {}
        self._ending: frozenset[str] = frozenset()  # nodes with a notice
        self._closed = threading.Event()
        # A thread, because Ray may keep a call for as long as its head is away.
        threading.Thread(target=self._look_for_notices, daemon=True).start()

    def hire(self, task: host_messages.Task) -> None:
        """Finds the host of a seat, or asks Ray for one. Ray waits for a node."""
        options = {
            "name": f"host-{task.seat}",
            "namespace": self._namespace,
            "lifetime": "detached",  # outlives the receiver
            "get_if_exists": True,
            "max_restarts": -1,
            "max_task_retries": 0,
            "num_cpus": self.cores,
            "scheduling_strategy": "SPREAD",
        }
        remote: Any = ray.remote(Host)
        host = remote.options(**options).remote(task._asdict())
        self._hosts[task.seat] = host

    def call(self, seat: int, number: int, asked: host_messages.Asked) -> None:
        """Starts a call, the `number`-th of a seat; `answers` has its end."""
        questions = [host_messages.to_dict(question) for question, _ in asked]
        try:
            # Ray fetches what is an argument for itself, and not what is in a list.
            frames = [self._ship(i, frame) for i, (_, frame) in enumerate(asked)]
            reference = self._hosts[seat].take.remote(questions, *frames)
        except exceptions.RayError as error:
            self._end(seat, number, error)
            return
        reference.future().add_done_callback(lambda end: self._end(seat, number, end))

    def _end(self, seat: int, number: int, end: Any) -> None:
        self._done.append((seat, number, end))
        self.bell.ring()

    def _ship(self, policy: int, frame: Any) -> Any:
        """Puts a policy's parameters into the object store, once for all hosts."""
        if frame is None or len(frame) < _INLINE_BYTES:
            return frame
        if self._shipped.get(policy, (None,))[0] is not frame:
            self._shipped[policy] = frame, ray.put(frame)
        return self._shipped[policy][1]

    def answers(self) -> Iterator[Answer]:
        """Yields the calls that have ended."""
        while self._done:
            yield _answer(*self._done.popleft())

    def is_leaving(self, place: str) -> bool:
        """Returns whether a node is to end soon, as a spot machine; by its id."""
        return place in self._ending

    def _look_for_notices(self) -> None:
        while not self._closed.wait(_NOTICE_SECS):
            # The head may be away. Ray has no public call that needs no dashboard, and
            # without this one a node that ends is a death.
            with contextlib.suppress(Exception):
                found = ray._private.state.state.get_draining_nodes()
                self._ending = frozenset(found)

    def kill(self, seat: int, restart: bool = True) -> None:
        """Kills the process of a host; Ray starts another one if `restart`."""
        with contextlib.suppress(exceptions.RayError):
            ray.kill(self._hosts[seat], no_restart=not restart)

    def close(self) -> None:
        self._closed.set()
        ray.shutdown()
        self.bell.close()


def _answer(seat: int, number: int, end: Any) -> Answer:
    """Returns the answer of a call that ended with a future or an error."""
    try:
        if isinstance(end, Exception):
            raise end
        replies = tuple(host_messages.Reply(**each) for each in end.result())
        return Answer(seat, number, replies)
    except exceptions.ActorDiedError as error:
        return Answer(seat, number, (), _short(error), is_gone=True)
    except exceptions.ActorUnavailableError:
        return Answer(seat, number, (), "its process or node does not answer Ray")
    except exceptions.RayError as error:
        return Answer(seat, number, (), _short(error))


def _short(error: Exception) -> str:
    """Returns the last line of Ray's text with an exception, or its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Error: " in line or "Error(" in line]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0][:300]


def smallest_node(nodes: list[dict[str, Any]]) -> int:
    """Returns the CPUs of the smallest live node that has any, or 1."""
    sizes = [int(n["Resources"].get("CPU", 0)) for n in nodes if n["Alive"]]
    return max(1, min(filter(None, sizes), default=1))


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Keeps the signal handlers, some of which Ray replaces."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
