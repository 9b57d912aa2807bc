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
from multiprocessing import connection as connection_lib
from typing import Any, NoReturn

from impala_mp import errors
from impala_mp.config import fields, live_hyperparameters, user_code
from impala_mp.runtime import fork_server, life_pipe, signals
from impala_mp.transport import host_messages

_JOIN_SECS = 5.0  # for the actors to end


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
        self._incarnation = 0
        self._host: Any = None  # a running one
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure, self._is_bad_input = "", False
        self._asked = time.monotonic()
        threading.Thread(target=self._watch_over, daemon=True).start()

    def take(self, question: dict[str, Any], parameters: Any) -> dict[str, Any]:
        """Answers the receiver; both messages are those of `host_messages`."""
        self._asked = time.monotonic()
        try:
            reply = self._answer(host_messages.Question(**question), parameters)
        except Exception as error:
            traceback.print_exc()
            self._failure = user_code.explain(error)
            reply = self._failed()
        self._asked = time.monotonic()
        return host_messages.to_dict(reply)

    def _answer(
        self, question: host_messages.Question, parameters: Any
    ) -> host_messages.Reply:
        if not self._incarnation:
            if not question.begin:
                return host_messages.Reply(0, host_messages.NEW)
            self._begin(question)
        if self._failure:
            return self._failed()
        if question.stop and not self._stopping:
            self._stopping = True
            if self._host:
                self._host.supervisor.stop()
        if not self._host:
            if question.room and self._thread:
                self._thread.join(question.poll_secs)
            return host_messages.Reply(self._incarnation, host_messages.STARTING)
        reply: host_messages.Reply = self._host.take(question, parameters)
        ended = self._thread is not None and not self._thread.is_alive()
        return reply._replace(state=host_messages.ENDED) if ended else reply

    def _failed(self) -> host_messages.Reply:
        return host_messages.Reply(
            self._incarnation,
            host_messages.FAILED,
            failure=self._failure,
            is_bad_input=self._is_bad_input,
        )

    def _begin(self, question: host_messages.Question) -> None:
        self._incarnation = question.incarnation
        self._thread = threading.Thread(target=self._run, args=(question,), daemon=True)
        self._thread.start()

    def _run(self, question: host_messages.Question) -> None:
        """Runs the actors until they are stopped or fail."""
        try:
            # Before the look: a request to stop sees the host, or is seen here.
            self._host = host = self._make(question)
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

    def _make(self, question: host_messages.Question) -> "Running":
        """Returns the moving parts.

        Raises:
          BadInput: they cannot be made here.
        """
        try:
            return Running(self._task, question, self._engine_pid)
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
        question: host_messages.Question,
        engine_pid: int,
    ) -> None:
        """Makes everything that the actors need.

        health.json shows `engine_pid`, that of the engine's process.

        Raises:
          BadInput: there is no such environment here, or no room for it.
        """
        # Here, because the engine's process imports this module, without torch.
        from impala_mp.environments import factory
        from impala_mp.runtime import allocation, host_supervisor
        from impala_mp.transport import topology
        from impala_mp.workers import forwarder

        config = fields.from_json(task.config)
        first, count = task.actors
        with config.unlocked():
            config.actors.count = count
            config.learner.ranks = 1  # that read its rings: the forwarder is one
            config.evaluation.during_training = False
        environment = factory.probe(config.environment)
        live = live_hyperparameters.of_config(config)
        made = allocation.make_agent(config, live, environment)
        policy = allocation.Policy("", config, live, environment, made)
        logs = os.path.join(_folder(task), "logs")
        os.makedirs(logs, exist_ok=True)
        (shared,) = allocation.allocate(
            [policy],
            os.path.join(_folder(task), "checkpoints"),
            count,
            seats=topology.of_host(count),
            all_actors=task.all_actors,
            first_actor=first,
            host_incarnation=question.incarnation,
            run=task.run,
        )
        tables = shared.actor_names[first : first + count]
        for table, names in zip(tables, question.names, strict=True):
            for each in names:
                table.append(each)
        self.supervisor = host_supervisor.HostSupervisor([shared], logs, _print)
        self._forwarder = forwarder.Forwarder(
            question.incarnation,
            shared.rings,
            count,
            shared.store,
            shared.control,
            tables,
            config.cluster.compression,
        )
        self._engine_pid, self._node = engine_pid, socket.gethostname()
        self._facts = allocation.facts(policy)

    def take(
        self, question: host_messages.Question, parameters: Any
    ) -> host_messages.Reply:
        """Answers a question; see `Forwarder.take`."""
        reply = self._forwarder.take(question, parameters)
        packer = self._forwarder.packer
        counters = {
            **self.supervisor.counters(),
            "pid": self._engine_pid,
            "raw_bytes": packer.raw_bytes,
            "wire_bytes": packer.wire_bytes,
        }
        return reply._replace(
            facts=self._facts if not reply.version else (),
            node=self._node,
            counters=tuple(counters.items()),
        )


def _folder(task: host_messages.Task) -> str:
    """Returns the folder of a host's logs; it goes when the actors end."""
    return os.path.join(tempfile.gettempdir(), task.name)


def _print(text: str) -> None:
    print(text, flush=True)
