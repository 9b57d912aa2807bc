"""Ray cluster on this machine whose nodes are network namespaces: for chaos.py."""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import harness
from faults import watch as watch_lib

MAX_NODES = 100
_STORE_BYTES = 100 * 2**20  # Ray's least, of a node
_START_SECS = 60.0  # of the head
_END_SECS = 20.0  # from SIGKILL
_MAX_STARTS = 100  # of a node
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
    # The head gives a node up after three looks without an answer.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
_RAYS_OWN = (  # parts of the command lines of its processes
    *(b"/raylet", b"/gcs_server", b"ray.scripts.scripts", b"/ray/_private/"),
    *(b"/ray/dashboard/", b"ray-dashboard", b"/ray/autoscaler/", b"ray::"),
    b"ray.util.client.server",
)


class FailedError(Exception):
    """The cluster cannot be made, or has ended; a sentence."""


def problem() -> str:
    """Returns why this machine can have no such cluster; "" if it can."""
    probe = f"impala-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "del", probe)
    except (OSError, subprocess.CalledProcessError):
        return "Network namespaces need root and the command ip."
    try:
        import ray
        import zstandard  # noqa: F401
    except ImportError as error:
        return f"Run pip install 'impala_mp[cluster]', which brings {error.name}."
    if ray.util.get_node_ip_address().startswith("127."):
        return "Connect this machine to a network: it has the loopback address only."
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Node:
    """A node behind its own link. `Cluster.poll` starts it again when it has ended."""

    def __init__(self, name: str, bridge: str, network: str, index: int) -> None:
        self.name, self.address = f"{name}-{index}", f"{network}.{10 + index}"
        self._link, self._bridge = f"{name}v{index}", bridge
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.cut_until = 0.0

    def open(self) -> None:
        """Makes the namespace and its link."""
        _ip("netns", "add", self.name)
        peer = ("type", "veth", "peer", "eth0", "netns", self.name)
        _ip("link", "add", self._link, *peer)
        _ip("link", "set", self._link, "master", self._bridge, "up")
        self._inside("addr", "add", f"{self.address}/24", "dev", "eth0")
        self._inside("link", "set", "lo", "up")
        self.join()

    def _inside(self, *arguments: str) -> None:
        _ip("-n", self.name, *arguments)

    def cut(self, until: float) -> None:
        self.cut_until = until
        self._inside("link", "set", "eth0", "down")

    def join(self) -> None:
        """Brings the link up."""
        self.cut_until = 0.0
        gateway = self.address.rpartition(".")[0] + ".1"
        self._inside("link", "set", "eth0", "up")
        self._inside("route", "replace", "default", "via", gateway)

    def pids(self) -> list[int]:
        command = ["ip", "netns", "pids", self.name]
        done = subprocess.run(command, capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def kill(self) -> None:
        """Kills all processes of the node, as a loss of power does."""

        def gone() -> bool:
            if self.process:
                self.process.kill()  # it may not be in there yet
            _kill(self.pids())
            return not self.pids()

        harness.wait_for(gone, _END_SECS)
        if self.process:
            self.process.wait()

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)


class Cluster:
    """A head without room for hosts, and nodes with room for one each."""

    def __init__(
        self, count: int, token: str, python_path: str, output: pathlib.Path
    ) -> None:
        """Starts the head; `poll` starts the nodes.

        Args:
          token: every process of the cluster inherits it, so that it can be found.
          output: file for what Ray prints.

        Raises:
          FailedError: the head does not start.
        """
        import ray

        self.token = f"cluster-{token}"
        self.settings = {**_SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._folder = tempfile.mkdtemp(prefix="ray")  # short: it has sockets
        temporary = pathlib.Path(self._folder, "tmp")  # of hosts, also killed ones
        temporary.mkdir()
        self._environment = {
            **os.environ,
            **self.settings,
            "PYTHONPATH": python_path,
            "TMPDIR": str(temporary),
            watch_lib.TOKEN: self.token,
        }
        self._output = output.open("ab")
        name = f"imp{token[:4]}"
        network = f"10.{100 + int(token[:2], 16) % 100}.{int(token[2:4], 16)}"
        self._bridge = f"{name}b"
        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as free:
            self.address = f"{host}:{free.getsockname()[1]}"
        self.nodes = [Node(name, self._bridge, network, i) for i in range(count)]
        try:
            self._open(f"{network}.1/24")
        except BaseException:
            self.close()
            raise

    def _open(self, gateway: str) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", gateway, "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        host, _, port = self.address.partition(":")
        head = ["--head", f"--node-ip-address={host}", f"--port={port}"]
        head += ["--num-cpus=0", "--include-dashboard=false"]
        self._head = self._start([], [*head, f"--temp-dir={self._folder}"])

        def answers() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(port)), 1.0).close()
                return True
            return False

        if not harness.wait_for(answers, _START_SECS, ended=self._has_ended):
            raise FailedError(f"the head of Ray did not start: see {self._output.name}")
        for node in self.nodes:
            node.open()

    def _has_ended(self) -> bool:
        return self._head.poll() is not None

    def _start(
        self, inside: list[str], arguments: list[str]
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        store = [f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats"]
        return subprocess.Popen(
            [*inside, *command, *store, *arguments],
            env=self._environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def poll(self) -> None:
        """Starts nodes that have ended, and joins those that were cut off.

        Raises:
          FailedError: the head has ended, or a node ends again and again.
        """
        if self._has_ended():
            raise FailedError(f"the head of Ray has ended: see {self._output.name}")
        for node in self.nodes:
            if node.cut_until:
                if node.cut_until <= time.monotonic():
                    node.join()
            elif node.process is None or node.process.poll() is not None:
                node.kill()  # what has outlived it
                if node.starts == _MAX_STARTS:
                    raise FailedError(f"{node.name} has ended {node.starts} times")
                node.starts += 1
                node.process = self._start(
                    ["ip", "netns", "exec", node.name],
                    [
                        *(f"--address={self.address}", "--num-cpus=1"),
                        f"--node-ip-address={node.address}",
                    ],
                )

    def node_of(self, pid: int) -> Node | None:
        return next((node for node in self.nodes if pid in node.pids()), None)

    def left(self) -> list[int]:
        """Returns processes that are not Ray's own: actor hosts and their actors."""
        return [pid for pid in watch_lib.processes(self.token) if not is_rays_own(pid)]

    def close(self) -> None:
        """Ends all processes and removes nodes, links and files."""
        for node in self.nodes:
            node.close()

        def gone() -> bool:
            _kill(watch_lib.processes(self.token))
            return not watch_lib.processes(self.token)

        harness.wait_for(gone, _END_SECS)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def is_rays_own(pid: int) -> bool:
    """Returns whether a process is a part of Ray, or has ended."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    # The code of a fork server names the folders of Ray, too.
    if b"ray::Host" in command or b"\0-c\0" in command:
        return False
    return not command or any(part in command for part in _RAYS_OWN)
