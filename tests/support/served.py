"""An inference server and its learner in one process."""

import contextlib
import threading

from impala_mp.environments import factory
from impala_mp.workers import (
    builders as worker_builders,
    inference_server,
    served_actor,
)
from tests.support import builders

ENDS = {
    "environment.id": "tests.support.short_cartpole:ShortCartPole-v0",
    "inference.mode": "server",
    "network.core": "lstm",
    "network.last_action": True,
    "actors.environments": 4,
    "batch_size": 8,
}


class Served:
    """A server and its actors in one process; `serving` runs it in a thread."""

    def __init__(self, tmp_path, **overrides):
        self.config = builders.config(**{**ENDS, **overrides})
        self.shared = builders.shared(self.config, tmp_path)
        shared = self.shared
        seats = shared.topology
        self.rows = [shared.row(seat) for seat in seats.actors]
        for row in self.rows:
            row.beat(2)  # running
        self.training = worker_builders.make_learner(seats.learner(), shared)
        self.actors = [self.start_actor(i, 0) for i in range(2)]
        self.server = self.start_server()

    def start_actor(self, index, incarnation):
        self.rows[index].set("incarnation", incarnation)
        settings = self.config.environment
        made = served_actor.ServedActor(
            [factory.make(settings, 2) for _ in range(2)],
            [self.shared.rings.ring(index)],
            self.shared.inference,
            self.shared.control,
            self.rows[index],
            index,
            incarnation,
            lambda: [10 * index + i for i in range(4)],
        )
        made.reset()
        return made

    @property
    def policy(self):
        """The server's part for the only policy."""
        (only,) = self.server._servers
        return only

    def start_server(self):
        shared = self.shared
        return inference_server.InferenceServer(
            [shared], shared.row(*shared.topology.of("inference")), 0
        )

    @contextlib.contextmanager
    def serving(self):
        end = threading.Event()

        def serve():
            while not end.is_set():
                self.server.refresh()
                if not self.server.serve():
                    end.wait(0.0005)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
