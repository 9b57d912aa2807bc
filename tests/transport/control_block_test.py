"""Memory, doorbells, the control block and the life pipe, in forkserver children."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from impala_mp import errors, specs
from impala_mp.transport import control_block, doorbell, shared_memory

_SPEC = {
    "a": specs.array_spec((3, 5), np.float32),
    "b": (specs.array_spec((7,), np.int64), specs.array_spec((1,), np.uint8)),
}


def _fill(memory, block, bell):
    memory.arrays["a"][...] = 2.5
    memory.arrays["b"][0][3] = 9
    row = block.row(1)
    row.set("pid", os.getpid())
    row.add("agent_steps", 5)
    row.add("agent_steps", 6)
    row.beat(control_block.State.RUNNING)
    assert block.get("epsilon") == 0.25
    bell.ring()


def test_children_share_memory_control_block_and_doorbell():
    memory = shared_memory.SharedArrays(_SPEC)
    block, bell = control_block.ControlBlock(2), doorbell.Doorbell()
    block.set("epsilon", 0.25)
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_fill, args=(memory, block, bell))
    process.start()
    assert bell.wait(30.0)
    process.join()
    assert process.exitcode == 0
    assert (memory.arrays["a"] == 2.5).all()
    assert memory.arrays["b"][0].tolist() == [0, 0, 0, 9, 0, 0, 0]
    row = block.row(1)
    assert (row.get("pid"), row.get("agent_steps")) == (process.pid, 11)
    assert row.state == control_block.State.RUNNING
    assert 0.0 <= row.heartbeat_age_secs() < 30.0
    assert block.row(0).get("pid") == 0


def test_a_process_that_never_beat_is_silent_since_the_block_was_made():
    row = control_block.ControlBlock(2).row(1)
    assert 0.0 <= row.heartbeat_age_secs() < 60.0  # not since the machine was booted


def test_what_a_person_says_comes_before_what_a_schedule_says():
    block = control_block.ControlBlock(1)
    block.set("epsilon", 0.25)
    block.set("clip_rho_threshold", 1.0)
    assert block.overrides() == {}
    block.override({"epsilon": 0.5, "clip_rho_threshold": np.inf})
    block.set("epsilon", 0.125)  # the schedule goes on
    assert (block.get("epsilon"), block.get("clip_rho_threshold")) == (0.5, np.inf)
    assert block.overrides() == {"epsilon": 0.5, "clip_rho_threshold": np.inf}
    block.override({"epsilon": None})
    assert block.get("epsilon") == 0.125
    assert block.overrides() == {"clip_rho_threshold": np.inf}
    assert block.num_changes == 4


def test_arrays_do_not_share_cache_lines():
    memory = shared_memory.SharedArrays(_SPEC)
    addresses = [
        array.__array_interface__["data"][0]
        for array in (memory.arrays["a"], *memory.arrays["b"])
    ]
    assert all(address % 64 == 0 for address in addresses)
    assert memory.nbytes == shared_memory.total_bytes(_SPEC) == 3 * 64


def test_a_shortage_of_memory_is_a_sentence():
    with pytest.raises(errors.BadInput, match=r"need .* MiB .* available: lower"):
        shared_memory.check_available(2**60)
    with pytest.raises(errors.BadInput, match="lower config.actors.slots"):
        shared_memory.SharedArrays(specs.array_spec((2**50,), np.uint8))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, errors.BadInput),
        (errno.ENOMEM, errors.BadInput),
        (errno.EOPNOTSUPP, OSError),
    ],
)
def test_another_failure_is_no_shortage_of_memory(monkeypatch, number, expected):
    def fail(fd, offset, size):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(expected):
        shared_memory.SharedArrays(_SPEC)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("limit", "current", "inactive_file", "expected"),
    [
        (1000, 900, 0, 100),
        (1000, 990, 600, 610),  # most of what is used is files that were read
        (1000, 1000, 0, 0),
        ("max", 990, 600, None),  # the machine is the limit
        (2**60, 2**20, 2**10, None),
    ],
)
def test_files_that_were_read_do_not_fill_a_container(
    tmp_path, limit, current, inactive_file, expected
):
    stat = f"anon 300\nfile 650\nactive_file 50\ninactive_file {inactive_file}\n"
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")
    (tmp_path / "memory.stat").write_text(stat)
    found = shared_memory.available_bytes(str(tmp_path))
    if expected is None:
        assert found == pytest.approx(shared_memory.available_bytes("/none"), rel=0.2)
    else:
        assert found == expected


def test_a_doorbell_is_a_hint():
    bell = doorbell.Doorbell()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.0)  # two rings, one look


_PARENT = """
import multiprocessing, os, sys, time
from impala_mp.runtime import life_pipe
from tests.transport import control_block_test

if __name__ == "__main__":
    life = life_pipe.LifePipe()
    context = multiprocessing.get_context("forkserver")
    for kind in ("sleep", "spin", "deaf"):
        process = context.Process(target=control_block_test.live, args=(life, kind))
        process.start()
        os.write(1, b"%d\\n" % process.pid)
    time.sleep(60.0)
"""


def live(life, kind):
    """A child that would not end by itself."""
    life.bind()
    if kind == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    os.write(1, b"bound\n")  # one call: two processes write to this pipe
    while True:
        if kind != "spin":
            time.sleep(60.0)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_children_die_with_their_supervisor(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        lines = [parent.stdout.readline().strip() for _ in range(6)]
        pids = [int(line) for line in lines if line != "bound"]
        assert len(pids) == 3
        assert all(map(_alive, pids))
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5.0
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
