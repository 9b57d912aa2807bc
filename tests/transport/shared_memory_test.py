"""Shared memory in forkserver children, and where it is short."""

import errno
import multiprocessing
import os

import numpy as np
import pytest

from impala_mp import errors, nest, specs
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
    # A program that an environment starts would keep the memory of a run that is over.
    assert not os.get_inheritable(memory._file.fileno())
    assert not os.get_inheritable(bell.fileno())
    bell.ring()


@pytest.mark.integration
def test_children_share_memory_control_block_and_doorbell():
    file, bell = shared_memory.MemoryFile(), doorbell.Doorbell()
    memory = shared_memory.SharedArrays(_SPEC, file)
    block = control_block.ControlBlock(2, file=file)
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


def _open_files():
    return set(os.listdir("/proc/self/fd"))


def test_memory_needs_no_function_that_a_python_may_lack(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    memory = shared_memory.SharedArrays(_SPEC)
    assert not os.get_inheritable(memory._file.fileno())


def test_blocks_of_one_file_are_apart_and_outlive_it():
    before, file = _open_files(), shared_memory.MemoryFile()
    blocks = [shared_memory.SharedArrays(_SPEC, file) for _ in range(3)]
    assert len(_open_files() - before) == 1 + 3  # the file, and the map of each
    for number, each in enumerate(blocks):
        for array in nest.flatten(each.arrays):
            assert not array.any()
            array[...] = number + 1
    file.close()
    for number, each in enumerate(blocks):
        for array in nest.flatten(each.arrays):
            assert (array == number + 1).all()
    del array, blocks, each
    assert _open_files() == before


def test_a_block_for_which_there_is_no_room_leaves_the_others(monkeypatch):
    file = shared_memory.MemoryFile()
    first = shared_memory.SharedArrays(_SPEC, file)
    first.arrays["a"][...] = 1.5
    with pytest.raises(errors.BadInput):
        shared_memory.SharedArrays(specs.array_spec((2**50,), np.uint8), file)
    second = shared_memory.SharedArrays(_SPEC, file)
    assert not second.arrays["a"].any()
    assert (first.arrays["a"] == 1.5).all()


def test_memory_and_doorbells_that_nobody_holds_leave_no_descriptor():
    before = _open_files()
    memory, bell = shared_memory.SharedArrays(_SPEC), doorbell.Doorbell()
    assert len(_open_files() - before) == 3  # the memory's own, the map's, the bell's
    bell.close()
    del memory, bell
    assert _open_files() == before


def test_memory_that_cannot_be_had_leaves_no_descriptor(monkeypatch):
    before = _open_files()
    monkeypatch.setattr(shared_memory, "available_bytes", lambda: 0)
    with pytest.raises(errors.BadInput):
        shared_memory.SharedArrays(_SPEC)
    assert _open_files() == before


def test_arrays_do_not_share_cache_lines():
    memory = shared_memory.SharedArrays(_SPEC)
    addresses = [
        array.__array_interface__["data"][0]
        for array in (memory.arrays["a"], *memory.arrays["b"])
    ]
    assert all(address % 64 == 0 for address in addresses)
    assert memory.nbytes == shared_memory.total_bytes(_SPEC) == 3 * 64


def test_a_shortage_of_memory_is_a_sentence():
    with pytest.raises(errors.BadInput, match=r"need .* MiB .* available\. Lower"):
        shared_memory.check_available(2**60)
    with pytest.raises(errors.BadInput, match="Lower config.actors.slots"):
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
