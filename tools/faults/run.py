"""The training that chaos.py torments: its lives, its processes, its disk."""

import contextlib
import math
import os
import pathlib
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any

import harness
from faults import cluster as cluster_lib, watch as watch_lib

_TOOLS = pathlib.Path(__file__).resolve().parents[1]
_POLL_SECS = 0.02
_PATIENCE_SECS = 60.0  # for what is waited for
_ORPHAN_SECS = 5.0  # that a child may outlive its supervisor
_DISK_SIZE = "64m"


class RunFailedError(Exception):
    """The run cannot go on, or does not; a sentence."""


def python_path() -> str:
    """Returns the PYTHONPATH with faulty_env and impala_mp."""
    places = [str(_TOOLS), str(_TOOLS.parent), os.environ.get("PYTHONPATH", "")]
    return ":".join(filter(None, places))


class Disk:
    """Small separate file system for the checkpoints, which can be filled."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        self.full_until = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.problem = self._mount()

    def _mount(self) -> str:
        options = ["-t", "tmpfs", "-o", f"size={_DISK_SIZE}"]
        command = ["mount", *options, "chaos", str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            return f"cannot mount: {error}"
        return f"cannot mount: {done.stderr.strip()}" if done.returncode else ""

    def fill(self, until: float) -> None:
        """Fills it to the last byte, and again when bytes become free."""
        self.full_until = until
        with (
            contextlib.suppress(OSError),
            open(self._filler, "ab", buffering=0) as file,
        ):
            while True:
                file.write(bytes(2**20))

    def empty(self) -> None:
        self.full_until = 0.0
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves the files, without the file system that they were on."""
        if self.problem:
            return
        self.empty()
        aside = self.folder.with_name("aside")
        shutil.copytree(self.folder, aside)
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        self.folder.rmdir()
        aside.rename(self.folder)
        self.problem = "closed"


class Run:
    """A training that goes on through any number of supervisors."""

    def __init__(
        self, base: pathlib.Path, arguments: list[str], checkpoints: str, hosts: int = 0
    ) -> None:
        """checkpoints: the folder in the run's that has them all."""
        self.folder = base / "run"
        self.token = uuid.uuid4().hex
        self.watch = watch_lib.Watch(self.folder)
        self.disk = Disk(self.folder / checkpoints)
        self.problems: list[str] = []
        self.overtaken = 0  # wounds whose run ended before they had healed
        self._arguments = arguments
        self._output = base / "output"
        self.temporary = base / "tmp"
        self.temporary.mkdir()
        self._lives = 0
        self._frozen: dict[int, float] = {}  # pid to the time of its SIGCONT
        self._training: Any = None  # of this life
        self._hosts = hosts
        self.cluster: cluster_lib.Cluster | None = None

    def open_cluster(self, output: pathlib.Path, with_spare: bool = False) -> None:
        """Makes the cluster of the hosts, if there are to be any."""
        if self._hosts:
            self.cluster = cluster_lib.Cluster(
                self._hosts + with_spare, self.token, python_path(), output
            )
            self._arguments = [
                *(*self._arguments, f"--config.cluster.hosts={self._hosts}"),
                f"--config.cluster.address={self.cluster.address}",
            ]

    # Lives.

    def start(self, total_agent_steps: int) -> None:
        self._lives += 1
        for pid in self._frozen:  # a host may be left
            self.signal(pid, signal.SIGCONT)
        self._frozen.clear()
        total = f"--config.total_agent_steps={total_agent_steps}"
        self._training = harness.Training(
            self.folder,
            [*self._arguments, total],
            output=self._output,
            env={
                "PYTHONPATH": python_path(),
                "TMPDIR": str(self.temporary),
                watch_lib.TOKEN: self._life(),
                **(self.cluster.settings if self.cluster else {}),
            },
        )
        self.watch.supervisor = self._training.process.pid

    def _life(self) -> str:
        return f"{self.token}-{self._lives}-"

    def stop(self, wound: str = "") -> None:
        """Stops the run as a scheduler does: SIGTERM to all processes."""
        self.until(lambda: self.watch.seats("supervisor"), "supervisor")
        may_lose = bool(self.disk.full_until)  # the last checkpoint
        may_lose |= any(w.name == "hung learner" for w in self.watch.wounds)
        if wound:
            self._end_of_life(wound)
        self._training.process.send_signal(signal.SIGTERM)
        for pid in watch_lib.processes(self._life()):
            self.signal(pid, signal.SIGTERM)
        self.await_end(_PATIENCE_SECS, may_lose)

    def kill(self) -> None:
        self._end_of_life("supervisor")
        self._training.kill()
        self._check_orphans()

    def _end_of_life(self, name: str) -> None:
        """The wound of the whole run takes the place of those of its processes."""
        wounds = self.watch.wounds
        kept = [w for w in wounds if isinstance(w, watch_lib.FullDisk)]
        self.overtaken += len(wounds) - len(kept)
        wounds[:] = kept
        # Healed by no incarnation under this supervisor.
        self.wound(name, {"role": "learner", "index": 0, "incarnation": math.inf})

    def await_end(self, seconds: float, may_lose: bool = False) -> None:
        """Waits for a good end; `may_lose` allows exit code 1: no last checkpoint."""
        if not harness.wait_for(self._training.is_over, seconds, self.poll):
            raise RunFailedError(f"the run did not end within {seconds:.0f} s")
        if self.exit_code not in ((0, 1) if may_lose else (0,)):
            self.problems.append(f"{self.last_words()}, where 0 was due")
        self._check_orphans()

    def _check_orphans(self) -> None:
        def orphans() -> list[int]:
            return watch_lib.processes(self._life())

        if not harness.wait_for(lambda: not orphans(), _ORPHAN_SECS, self.poll):
            self.problems.append(f"processes outlived their supervisor: {orphans()}")

    @property
    def exit_code(self) -> int | None:
        return self._training.process.poll()

    def last_words(self) -> str:
        words = self._training.text().strip().splitlines()
        return f"the run ended with exit code {self.exit_code} ({words[-1:]})"

    # Watching.

    def poll(self) -> None:
        """Looks, and undoes what has lasted long enough."""
        time.sleep(_POLL_SECS)
        now = time.monotonic()
        for pid, due in list(self._frozen.items()):
            if due <= now:
                del self._frozen[pid]
                self.signal(pid, signal.SIGCONT)
        if self.disk.full_until > now:
            self.disk.fill(self.disk.full_until)
        elif self.disk.full_until:
            self.disk.empty()
            self.watch.wounds.append(watch_lib.FullDisk(self.disk.folder))
        if self.cluster:
            self.cluster.poll()
        self.watch.look()

    def until(
        self, find: Callable[[], Any], what: str, seconds: float = _PATIENCE_SECS
    ) -> Any:
        """Returns what `find` finds in the living run, sooner or later."""

        def look() -> Any:
            self.poll()
            if self._training.is_over():
                raise RunFailedError(self.last_words())
            return find()

        found = harness.wait_for(look, seconds, pause=lambda: None)
        if not found:
            raise RunFailedError(f"no {what} within {seconds:.0f} s")
        return found

    def is_whole(self) -> bool:
        """Returns whether there is a record, and whether all hosts work."""
        working = [h for h in self.watch.hosts if h["state"] in watch_lib.ALIVE]
        return bool(self.watch.num_records) and len(working) == self._hosts

    def check_hosts(self) -> None:
        """Checks that hosts end with their run, on all nodes."""
        if self.cluster and not harness.wait_for(
            lambda: not self.cluster.left(), _PATIENCE_SECS, self.poll
        ):
            self.problems.append(f"hosts outlived their run: {self.cluster.left()}")

    def settle(self) -> None:
        """Until every wound has healed, or is beyond healing."""

        def settled() -> bool:
            open_ends = [due for due in self._frozen.values() if due < math.inf]
            nodes = self.cluster.nodes if self.cluster else []
            open_ends += [node.cut_until for node in nodes if node.cut_until]
            return not (open_ends or self.disk.full_until or self.watch.wounds)

        self.until(settled, "end of the recoveries", 4 * _PATIENCE_SECS)

    # Touching one process.

    def victim(self, role: str, choice: int, running: bool = True) -> dict[str, Any]:
        """One of the processes of `role`; `running`: past its start."""

        def find() -> dict[str, Any] | None:
            there = [
                p
                for p in self.watch.seats(role)
                if p["pid"] not in self._frozen
                and (p["state"] in watch_lib.ALIVE or not running)
                and watch_lib.is_ours(p["pid"], self._life())
            ]
            return there[choice % len(there)] if there else None

        return self.until(find, role)

    def signal(self, pid: int, number: int) -> None:
        """Signals a process of this run or its hosts only; its pid may be reused."""
        tokens = [self.token, *([self.cluster.token] if self.cluster else [])]
        if any(watch_lib.is_ours(pid, token) for token in tokens):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def is_frozen(self, pid: int) -> bool:
        return pid in self._frozen

    def freeze(self, pid: int, until: float = math.inf) -> None:
        self._frozen[pid] = until
        self.signal(pid, signal.SIGSTOP)

    def wound(self, name: str, seat: dict[str, Any]) -> None:
        supervisor = self.watch.supervisor
        self.watch.wounds.append(watch_lib.Wound(name, seat, supervisor))

    def close(self) -> None:
        """Removes all processes, the cluster and the mount, after any failure."""
        try:
            for pid in watch_lib.processes(self.token):
                self.signal(pid, signal.SIGKILL)
            self.disk.close()
        finally:
            if self.cluster:
                self.cluster.close()
