"""Publication without torn reads: a writer at full speed, and killed anywhere."""

import os
import random
import time

import numpy as np
import pytest
import torch

from impala_mp.transport import parameter_store
from tests.support import forks

_SIZE = 4 * 1_600_000  # bytes: 1.6M float32 parameters
_DEADLINE_SECS = 3600.0  # for what takes its time where others want the cores too


def _pattern(buffer, version):
    buffer.view(np.uint64)[:] = version


def _whole(buffer):
    words = buffer.view(np.uint64)
    return int(words[0]) if (words == words[0]).all() else None


def _write_for_ever(store, pause_secs=0.0):
    source = np.empty(store.num_bytes, np.uint8)
    while True:
        _pattern(source, store.latest + 1)
        store.publish(source)
        time.sleep(pause_secs)


def _count_torn(store, num_reads):
    into = np.empty(store.num_bytes, np.uint8)
    version = torn = reads = 0
    deadline = time.monotonic() + _DEADLINE_SECS
    while reads < num_reads and time.monotonic() < deadline:
        newest = store.fetch(into, newer_than=version)
        if newest > 0:
            reads += 1
            torn += _whole(into) != newest
            assert newest > version
            version = newest
    assert reads == num_reads
    return torn


@pytest.mark.integration
@pytest.mark.parametrize(
    "num_reads", [1_000, pytest.param(10_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("checksums", [False, True])
def test_no_read_is_torn_while_a_writer_runs_at_full_speed(num_reads, checksums):
    store = parameter_store.ParameterStore(_SIZE, checksums)
    with forks.child(_write_for_ever, store):
        assert _count_torn(store, num_reads) == 0


class _Unprotected(parameter_store.ParameterStore):
    """The broken copy: one buffer, whose version counts before it is whole."""

    def publish(self, source):
        half = len(source) // 2
        np.copyto(self._buffers[0][:half], source[:half])
        self._words[0] += 1
        time.sleep(0.01)  # a reader meets the version here, however fast it copies
        np.copyto(self._buffers[0][half:], source[half:])
        return self._words[0]

    def fetch(self, into, newer_than=0):
        version = self.latest
        if version <= newer_than:
            return 0
        np.copyto(into, self._buffers[0])
        return version


@pytest.mark.integration
def test_the_test_sees_a_store_that_tears():
    store = _Unprotected(_SIZE)
    with forks.child(_write_for_ever, store):
        assert _count_torn(store, 50) > 0


def _load_half(shared, module, half_done):
    def rest(*unused):
        os.write(half_done, b".")
        time.sleep(3600.0)

    shared[3].register_load_state_dict_pre_hook(rest)
    shared.load_state_dict(module.state_dict())


def test_load_state_dict_on_shared_tensors_tears():
    """A reader that copies while the writer waits between two layers has both."""

    def constant(value):
        module = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(6)])
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(value)
        return module

    shared, mine = constant(0.0).share_memory(), constant(2.0)
    half_done, writer = os.pipe()
    with forks.child(_load_half, shared, constant(1.0), writer):
        os.close(writer)
        assert os.read(half_done, 1) == b"."
        mine.load_state_dict(shared.state_dict())
    os.close(half_done)
    assert {v for p in mine.parameters() for v in p.unique().tolist()} == {0.0, 1.0}


def _publish_and_die(store, step):
    source = np.empty(store.num_bytes, np.uint8)
    _pattern(source, store.latest + 1)
    calls = iter(range(1, 10))

    def barrier():
        if next(calls) == step:
            forks.die()

    store._barrier = barrier
    store.publish(source)


@pytest.mark.integration
def test_a_writer_killed_midway_leaves_a_whole_version():
    store = parameter_store.ParameterStore(_SIZE)
    into = np.empty(_SIZE, np.uint8)
    _pattern(into, 1)
    store.publish(into)
    rng = random.Random(0)
    for death in range(100):
        before = store.latest
        if death % 2:  # at a step of the protocol
            with forks.child(_publish_and_die, store, death // 2 % 3 + 1) as pid:
                forks.wait(pid)
        else:  # anywhere, the copy included
            with forks.child(_write_for_ever, store):
                deadline = time.monotonic() + 60.0
                while store.latest < before + 2 and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0.0, 0.01))
        version = store.fetch(into)
        assert version in (before, before + 1) or death % 2 == 0
        assert version == store.latest
        assert _whole(into) == version
        _pattern(into, version + 1)  # a new writer goes on
        assert store.publish(into) == version + 1


def test_only_what_is_newer_is_fetched():
    store = parameter_store.ParameterStore(64)
    into = np.zeros(64, np.uint8)
    assert store.fetch(into) == 0
    assert store.publish(np.full(64, 7, np.uint8)) == 1
    assert store.fetch(into) == 1
    assert (into == 7).all()
    assert store.fetch(into, newer_than=1) == 0
    assert [store.publish(into) for _ in range(5)] == [2, 3, 4, 5, 6]
    assert store.fetch(into, newer_than=1) == 6


def test_a_reader_gives_up_after_bounded_attempts():
    store = parameter_store.ParameterStore(64)
    into = np.zeros(64, np.uint8)
    store.publish(into)
    store._words[parameter_store._VERSION + parameter_store._LINE] = 0  # being written
    assert store.fetch(into) == parameter_store.FAILED
    assert store.torn == parameter_store._ATTEMPTS


def test_a_checksum_finds_a_mixture():
    store = parameter_store.ParameterStore(64, checksums=True)
    store.publish(np.full(64, 7, np.uint8))
    store._buffers[1][5] = 8
    with pytest.raises(RuntimeError, match="version 1 of the parameters is torn"):
        store.fetch(np.zeros(64, np.uint8))


class _Disturbed(parameter_store.ParameterStore):
    """Fails its next copies on purpose, half-way; or raises."""

    copies_to_fail = 0
    raises = False

    def _copy(self, version, into):
        if self.raises or self.copies_to_fail:
            _pattern(into[: into.nbytes // 2], version)
            into[into.nbytes // 2 :] = 255
            if self.raises:
                raise RuntimeError(f"version {version} of the parameters is torn")
            self.copies_to_fail -= 1
            return False
        return super()._copy(version, into)


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_never_keeps_a_version_that_its_buffer_does_not_contain(seed):
    """Random publications, copies and failures, against what must hold after each."""
    rng = random.Random(seed)
    store = _Disturbed(64)
    reader = parameter_store.ParameterReader(store, np.zeros(64, np.uint8))
    source, fetches, torn = np.empty(64, np.uint8), 0, 0
    for _ in range(300):
        for _ in range(rng.choice((0, 0, 1, 1, 5))):
            _pattern(source, store.latest + 1)
            store.publish(source)
        failures = rng.choice((0, 0, 1, parameter_store._ATTEMPTS))
        store.copies_to_fail, store.raises = failures, rng.random() < 0.1
        before = reader.version
        is_newer = store.latest > before
        if store.raises and is_newer:
            with pytest.raises(RuntimeError, match="is torn"):
                reader.fetch()
            assert reader.version == 0
            continue
        succeeds = is_newer and failures < parameter_store._ATTEMPTS
        assert reader.fetch() == succeeds
        fetches += is_newer
        torn += failures * is_newer
        assert (reader.num_fetches, reader.num_torn) == (fetches, torn)
        if is_newer:
            assert reader.version == (store.latest if succeeds else 0)
        else:
            assert reader.version == before
        assert reader.version in (0, _whole(reader.buffer))
    assert fetches > 50
    assert torn > 50
