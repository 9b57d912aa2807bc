"""Versions and machine of a run, kept in machine.json in its folder."""

import contextlib
import glob
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time

import impala_mp
from impala_mp.config import container_limits
from impala_mp.storage import files

NAME = "machine.json"

_PACKAGES = ("torch", "numpy", "gymnasium")


def record(folder: str) -> None:
    """Writes what `describe` returns, and the time, at the start of a run.

    On a full disk there is no such file, and the run goes on.
    """
    started = {"started": time.strftime("%Y-%m-%d %H:%M:%S %z"), **describe()}
    text = json.dumps(started, indent=2)
    with contextlib.suppress(OSError):
        files.write_atomically(os.path.join(folder, NAME), f"{text}\n", durable=False)


def describe() -> dict[str, str]:
    """Returns the versions of the packages, and facts on this machine, by name.

    None of them is a secret: no variable of the environment, no name of a user or host.
    """
    return {
        "impala_mp": impala_mp.__version__,
        "commit": _commit(),
        "Python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": f"{_processor()}, {container_limits.num_cores()} cores",
        "memory": f"{_memory_gib():.1f} GiB",
        "GPU": _gpu() or "none",
    }


def _commit() -> str:
    """Returns the commit of the checkout that this code runs from; none: an install."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(impala_mp.__file__)))
    if not os.path.exists(os.path.join(root, ".git")):
        return "none"
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # git is not there, refuses or waits
        return "unknown"
    return f"{commit}, with changes" if changes else commit


def _git(root: str, *arguments: str) -> str:
    # Variables of a hook would name another repository.
    plain = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", root, *arguments],
        env={**plain, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        timeout=5.0,
        check=True,
    )
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _first_match(path: str, pattern: str) -> str:
    """Returns the group of a pattern in a file of /proc; "" if there is none."""
    try:
        text = files.read_bytes(path).decode(errors="replace")
    except (OSError, files.Damaged):
        return ""
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else ""


def _processor() -> str:
    return _first_match("/proc/cpuinfo", r"^model name\s*:(.*)$") or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _gpu() -> str:
    """Returns the names of the GPUs, without starting CUDA."""
    paths = sorted(glob.glob("/proc/driver/nvidia/gpus/*/information"))
    return ", ".join(_first_match(path, r"^Model:(.*)$") for path in paths)
