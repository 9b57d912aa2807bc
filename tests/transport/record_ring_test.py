"""Ring of records: all arrive, whole and in order, also after kills."""

import time

import numpy as np
import pytest

from impala_mp.transport import record_ring
from tests.support import forks

_DEADLINE_SECS = 30.0
_NAMES = tuple("abcdefgh")


def _write(ring):
    value = 0.0
    while True:
        value += ring.write(dict.fromkeys(_NAMES, value + 1.0))


@pytest.mark.integration
def test_records_come_whole_and_in_order():
    ring = record_ring.RecordRing(_NAMES, capacity=3)
    seen = 0.0
    with forks.child(_write, ring):
        deadline = time.monotonic() + _DEADLINE_SECS
        while seen < 1000 and time.monotonic() < deadline:
            for record in ring.read():
                seen += 1.0
                assert set(record.values()) == {seen}
    assert seen >= 1000


@pytest.mark.integration
def test_a_writer_that_dies_in_a_row_leaves_those_before(monkeypatch):
    ring = record_ring.RecordRing(_NAMES, capacity=3)

    def write_and_die():
        ring.write(dict.fromkeys(_NAMES, 1.0))
        ring._barrier = forks.die  # before the row is announced
        ring.write(dict.fromkeys(_NAMES, 2.0))

    with forks.child(write_and_die) as pid:
        forks.wait(pid)
    assert [record["a"] for record in ring.read()] == [1.0]
    assert ring.write(dict.fromkeys(_NAMES, 3.0))  # of the next incarnation
    assert [set(record.values()) for record in ring.read()] == [{3.0}]


def test_a_full_ring_takes_nothing():
    ring = record_ring.RecordRing(("a", "b"), capacity=2)
    assert ring.free == 2
    assert [ring.write({"a": x}) for x in (1.0, 2.0, 3.0)] == [True, True, False]
    assert ring.free == 0
    records = ring.read()
    assert [record["a"] for record in records] == [1.0, 2.0]
    assert np.isnan(records[0]["b"])
    assert ring.read() == []
    with pytest.raises(KeyError, match="c"):
        ring.write({"c": 1.0})
