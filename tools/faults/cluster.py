"""Ray cluster on this machine whose nodes are network namespaces: for chaos.py."""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from faults import watch as watch_lib

_STORE_BYTES = 100 * 2**20  # Ray's least, of a node
_START_SECS = 60.0
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",
    # A node without contact is given up after 3 to 5 s.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def problem() -> str:
    """Returns why this machine can have no such cluster; "" if it can."""
    if os.geteuid() or not shutil.which("ip"):
        return "it needs network namespaces: root, and the command ip"
    try:
        import ray
        import zstandard  # noqa: F401
    except ImportError as error:
        return f"{error.name} is missing: pip install 'impala_mp[cluster]'"
    if ray.util.get_node_ip_address().startswith("127."):
        return "this machine has no address but the loopback's"
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class _Node:
    """A node behind its own link. It is started again when it has ended."""

    def __init__(self, name: str, bridge: str, network: str, index: int) -> None:
        self.name, self.address = f"{name}-{index}", f"{network}.{10 + index}"
        self.process: subprocess.Popen[bytes] | None = None
        self.cut_until = 0.0
        link = f"{name}v{index}"
        _ip("netns", "add", self.name)
        _ip("link", "add", link, "type", "veth", "peer", "eth0", "netns", self.name)
        _ip("link", "set", link, "master", bridge, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
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
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()

    def close(self) -> None:
        self.kill()
        _ip("netns", "del", self.name)


class Cluster:
    """A head without room for hosts, and nodes with room for one each."""

    def __init__(self, count: int, token: str, python_path: str) -> None:
        """token: every process of the cluster inherits it, so that it can be found."""
        import ray

        self.token = f"cluster-{token}"
        self.settings = {**_SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._environment = {
            **os.environ,
            **self.settings,
            "PYTHONPATH": python_path,
            watch_lib.TOKEN: self.token,
        }
        self._folder = tempfile.mkdtemp(prefix="ray")  # short: it has sockets
        self._output = open(f"{self._folder}/output", "ab")  # noqa: SIM115
        name = f"imp{token[:4]}"
        network = f"10.{100 + int(token[:2], 16) % 100}.{int(token[2:4], 16)}"
        self._bridge = f"{name}b"
        self.address = f"{ray.util.get_node_ip_address()}:{20000 + os.getpid() % 10000}"
        self.nodes: list[_Node] = []
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{network}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            host, _, port = self.address.partition(":")
            head = ["--head", f"--node-ip-address={host}", f"--port={port}"]
            head += ["--num-cpus=0", "--include-dashboard=false"]
            self._head = self._start([], [*head, f"--temp-dir={self._folder}"])
            for index in range(count):
                self.nodes.append(_Node(name, self._bridge, network, index))
        except BaseException:
            self.close()
            raise

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
        """Starts nodes that have ended, and joins those that were cut off."""
        for node in self.nodes:
            if node.cut_until:
                if node.cut_until <= time.monotonic():
                    node.join()
            elif node.process is None or node.process.poll() is not None:
                node.kill()  # what has outlived it
                node.process = self._start(
                    ["ip", "netns", "exec", node.name],
                    [
                        *(f"--address={self.address}", "--num-cpus=1"),
                        f"--node-ip-address={node.address}",
                    ],
                )

    def node_of(self, pid: int) -> _Node | None:
        return next((node for node in self.nodes if pid in node.pids()), None)

    def left(self) -> list[int]:
        """Processes that are not Ray's own: actor hosts and their actors."""
        return [pid for pid in watch_lib.processes(self.token) if not _is_ray(pid)]

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        while pids := watch_lib.processes(self.token):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._bridge)
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _is_ray(pid: int) -> bool:
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # it has ended
    return b"ray" in command and b"ray::Host" not in command
