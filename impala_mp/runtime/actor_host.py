"""One actor host: a process on another node with actors, rings and a store.

The receiver at the learner's host asks, and the engine's process passes the questions
on (`host_relay`). The first question that begins an incarnation starts the actors, in a
thread. The process ends if no question comes.
"""

import contextlib
import faulthandler
import os
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing import connection as connection_lib
from typing import Any, NoReturn

from impala_mp import errors
from impala_mp.config import fields, user_code
from impala_mp.runtime import fork_server, life_pipe, pidfd, signals
from impala_mp.transport import host_messages

_JOIN_SECS = 5.0  # for the actors to end

_Questions = Sequence[host_messages.Question]  # one for each policy


def serve(
    task: host_messages.Task,
    engine_pid: int,
    connection: connection_lib.Connection,
    life: life_pipe.ChildEnd,
) -> NoReturn:
    """Answers questions, after one word that it can.

    The process exits with 0 when none has come for `cluster.orphan_secs`.
    """
    life.bind()
    faulthandler.enable()
    signals.leave_to_supervisor()
    try:
        with contextlib.suppress(OSError):  # the supervisor retries and reports it
            fork_server.start(by_fork=True)  # while there is one thread
        host = ActorHost(task, engine_pid)
        connection.send("ready")
        while True:
            connection.send(host.take(*connection.recv()))
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # an orderly end would wait for the actors


class ActorHost:
    """The process of a host."""

    def __init__(self, task: host_messages.Task, engine_pid: int) -> None:
        self._task, self._engine_pid = task, engine_pid
        self._orphan_secs = float(
            fields.from_json(self._task.config).cluster.orphan_secs
        )
        self._incarnations: list[int] = []  # of each policy, once it has begun
        self._host: Any = None  # a running one
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure, self._is_bad_input = "", False
        self._asked = time.monotonic()
        threading.Thread(target=self._watch_over, daemon=True).start()

    def take(
        self, questions: list[dict[str, Any]], parameters: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """Answers the receiver; all messages are those of `host_messages`.

        There is a question, a reply and parameters (or None) for each policy.
        """
        self._asked = time.monotonic()
        asked = [host_messages.Question(**each) for each in questions]
        try:
            replies = self._answer(asked, parameters)
        except Exception as error:
            traceback.print_exc()
            self._failure = user_code.explain(error)
            replies = self._failed(asked)
        self._asked = time.monotonic()
        return [host_messages.to_dict(each) for each in replies]

    def _answer(
        self, questions: _Questions, parameters: Sequence[Any]
    ) -> Sequence[host_messages.Reply]:
        first = questions[0]
        if not self._incarnations:
            if not first.begin:
                return self._replies(questions, host_messages.NEW)
            self._begin(questions)
        if self._failure:
            return self._failed(questions)
        if first.stop and not self._stopping:
            self._stopping = True
            if self._host:
                self._host.supervisor.stop()
        if not self._host:
            if self._thread:
                self._thread.join(max(each.poll_secs for each in questions))
            return self._replies(questions, host_messages.STARTING)
        # Asked before: the replies have all that actors which have ended committed.
        ended = self._thread is not None and not self._thread.is_alive()
        replies: list[host_messages.Reply] = self._host.take(questions, parameters)
        if ended:
            replies = [each._replace(state=host_messages.ENDED) for each in replies]
        return replies

    def _replies(
        self, questions: _Questions, state: str, **facts: Any
    ) -> list[host_messages.Reply]:
        """Returns the reply for each policy, without slots."""
        own = self._incarnations or [0] * len(questions)
        return [host_messages.Reply(number, state, **facts) for number in own]

    def _failed(self, questions: _Questions) -> list[host_messages.Reply]:
        facts = {"failure": self._failure, "is_bad_input": self._is_bad_input}
        return self._replies(questions, host_messages.FAILED, **facts)

    def _begin(self, questions: _Questions) -> None:
        self._incarnations = [each.incarnation for each in questions]
        self._thread = threading.Thread(
            target=self._run, args=(questions,), daemon=True
        )
        self._thread.start()

    def _run(self, questions: _Questions) -> None:
        """Runs the actors until they are stopped or fail."""
        try:
            # Before the look: a request to stop sees the host, or is seen here.
            self._host = host = self._make(questions)
            if not self._stopping:
                host.supervisor.run()
        except errors.BadInput as error:
            self._failure, self._is_bad_input = str(error), True
        except errors.RunFailed as error:
            self._failure = str(error)
        except BaseException as error:
            traceback.print_exc()
            self._failure = user_code.explain(error)
        finally:
            shutil.rmtree(_folder(self._task), ignore_errors=True)

    def _make(self, questions: _Questions) -> "Running":
        """Returns the moving parts.

        Raises:
          BadInput: they cannot be made here.
        """
        pidfd.check()
        try:
            return Running(self._task, questions, self._engine_pid)
        except errors.BadInput:
            raise
        except Exception as error:  # of the user's environment
            raise errors.BadInput(
                f"the environment or the network cannot be made ({error!r:.300})."
                " Install what they need on all nodes."
            ) from error

    def _watch_over(self) -> None:
        """Ends this process when the learner's host has not asked for too long."""
        while time.monotonic() - self._asked < self._orphan_secs:
            time.sleep(min(1.0, self._orphan_secs / 4.0))
        print(f"No question for {self._orphan_secs:g} s. The host ends.", flush=True)
        if self._host:
            self._host.supervisor.stop()
        if self._thread:
            self._thread.join(_JOIN_SECS)
        os._exit(0)


class Running:
    """The moving parts of one incarnation."""

    def __init__(
        self,
        task: host_messages.Task,
        questions: _Questions,
        engine_pid: int,
    ) -> None:
        """Makes everything that the actors need.

        health.json shows `engine_pid`, that of the engine's process.

        Raises:
          BadInput: there is no such environment here, or no room for it.
        """
        # Here, because the engine's process imports this module, without torch.
        from impala_mp.environments import members
        from impala_mp.runtime import allocation, host_supervisor
        from impala_mp.transport import topology
        from impala_mp.workers import forwarder

        config = fields.from_json(task.config)
        first, count = task.actors
        with config.unlocked():
            config.actors.count = count
            # The forwarder is the only reader of its rings.
            config.learner.ranks = config.learner.processes = 1
            config.evaluation.during_training = False
        policies = allocation.without_checks(config, members.probe(config))
        logs = os.path.join(_folder(task), "logs")
        os.makedirs(logs, exist_ok=True)
        shared = allocation.allocate(
            policies,
            os.path.join(_folder(task), "checkpoints"),
            count,
            config,
            seats=topology.of_host(count, len(policies)),
            all_actors=task.all_actors,
            first_actor=first,
            host_incarnation=questions[0].incarnation,
            run=task.run,
        )
        tables = shared[0].actor_names[first : first + count]
        for table, names in zip(tables, questions[0].names, strict=True):
            for each in names:
                table.append(each)
        self.supervisor = host_supervisor.HostSupervisor(shared, logs, _print)
        self._answer = forwarder.answer
        self._forwarders = [
            forwarder.Forwarder(
                question.incarnation,
                each.rings,
                count,
                each.store,
                each.control,
                tables if each is shared[0] else [],
                config.cluster.compression,
            )
            for each, question in zip(shared, questions, strict=True)
        ]
        self._engine_pid, self._node = engine_pid, socket.gethostname()
        self._facts = [allocation.facts_of_all([each]) for each in policies]

    def take(
        self, questions: _Questions, parameters: Sequence[Any]
    ) -> list[host_messages.Reply]:
        """Answers the question of each policy; see `forwarder.answer`."""
        replies = self._answer(self._forwarders, questions, parameters)
        packers = [each.packer for each in self._forwarders]
        counters = {
            **self.supervisor.counters(),
            "pid": self._engine_pid,
            "raw_bytes": sum(each.raw_bytes for each in packers),
            "wire_bytes": sum(each.wire_bytes for each in packers),
        }
        return [
            reply._replace(
                facts=facts if not reply.version else (),
                node=self._node,
                counters=tuple(counters.items()),
            )
            for reply, facts in zip(replies, self._facts, strict=True)
        ]


def _folder(task: host_messages.Task) -> str:
    """Returns the folder of a host's logs; it goes when the actors end."""
    return os.path.join(tempfile.gettempdir(), task.name)


def _print(text: str) -> None:
    print(text, flush=True)
