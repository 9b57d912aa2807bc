"""Rows of episodes.csv: each game once, after cuts, rewinds and a full disk."""

import csv
import errno
import os

import numpy as np
import pytest

from impala_mp.storage import episodes


def _add(writer, steps, returns, names=(), numbers=None, tasks=None):
    count = len(returns)
    writer.add(
        steps,
        steps / 1000.0,
        np.array(returns, np.float32),
        np.arange(count, dtype=np.int32) + 1,
        np.zeros(count, np.int64) if tasks is None else np.array(tasks),
        np.zeros((count, 0)) if numbers is None else np.array(numbers),
        list(names),
    )


def _writer(folder, num_rows=0, names=(), **others):
    writer = episodes.Writer(str(folder), **others)
    writer.rewind(num_rows, names)
    return writer


def _returns(folder):
    return episodes.read(str(folder))["return"].tolist()


def test_rows_are_what_was_added(tmp_path):
    writer = _writer(tmp_path, tasks=("Pong", 'a "b", c'))
    _add(writer, 10, [1.5, -2.0], tasks=[0, 1])
    _add(writer, 20, [])
    _add(writer, 30, [0.1], tasks=[1])
    writer.close()
    found = episodes.read(str(tmp_path))
    assert found["agent_steps"].tolist() == [10.0, 10.0, 30.0]
    assert found["time_secs"].tolist() == [0.01, 0.01, 0.03]
    assert found["return"].tolist() == [1.5, -2.0, pytest.approx(0.1)]
    assert found["length"].tolist() == [1.0, 2.0, 1.0]
    assert found["task"] == ["Pong", 'a "b", c', 'a "b", c']


def test_numbers_that_appear_later_get_their_own_column(tmp_path):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0])
    _add(writer, 2, [2.0, 3.0], ["score"], [[7.0], [np.nan]])
    _add(writer, 3, [4.0], ["score", "x,y"], [[8.0, 0.25]])
    writer.close()
    with open(tmp_path / "episodes.csv", newline="") as file:
        rows = list(csv.DictReader(file))  # a plain reader has them, too
    assert [row["score"] for row in rows] == [None, "7", "", "8"]
    assert rows[-1]["x,y"] == "0.25"
    found = episodes.read(str(tmp_path))
    np.testing.assert_array_equal(found["score"], [np.nan, 7.0, np.nan, 8.0])
    np.testing.assert_array_equal(found["x,y"], [np.nan, np.nan, np.nan, 0.25])


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 5])
def test_a_rewind_leaves_the_first_rows(tmp_path, kept):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0, 2.0])
    _add(writer, 2, [3.0], ["score"], [[7.0]])
    writer.flush()
    again = _writer(tmp_path, kept, ["score"])
    assert again.num_rows == min(kept, 3)
    _add(again, 9, [9.0], ["score"], [[1.0]])
    again.close()
    assert _returns(tmp_path) == [1.0, 2.0, 3.0][:kept] + [9.0]


def test_a_rewind_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(episodes, "_BLOCK_BYTES", 64)
    writer = _writer(tmp_path)
    for i in range(100):
        _add(writer, i, [float(i)])
    writer.close()
    _writer(tmp_path, 57).close()
    assert _returns(tmp_path) == list(map(float, range(57)))


def test_half_a_row_of_a_killed_writer_is_dropped(tmp_path):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0, 2.0])
    writer.close()
    with open(tmp_path / "episodes.csv", "a") as file:
        file.write("3,0.0")
    assert _returns(tmp_path) == [1.0, 2.0]
    again = _writer(tmp_path, 7)
    _add(again, 4, [4.0])
    again.close()
    assert _returns(tmp_path) == [1.0, 2.0, 4.0]


def test_a_full_disk_keeps_rows_in_memory(tmp_path, monkeypatch):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0])
    real = episodes.files.os.write

    def half(fd, data):
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(episodes.files.os, "write", half)
    writer.flush()
    assert _returns(tmp_path) == []  # nothing is half-written
    monkeypatch.setattr(episodes.files.os, "write", real)
    _add(writer, 2, [2.0])
    writer.close()
    assert _returns(tmp_path) == [1.0, 2.0]
    assert writer.num_lost == 0


def test_rows_beyond_the_memory_limit_are_counted(tmp_path, monkeypatch, capsys):
    def full(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = _writer(tmp_path)
    monkeypatch.setattr(episodes, "_MAX_BUFFER_BYTES", 30)
    monkeypatch.setattr(episodes.files.os, "write", full)
    _add(writer, 1, [1.0, 2.0, 3.0])
    writer.flush()
    assert (writer.num_lost, writer.num_rows) == (3, 0)
    assert "3 rows of episodes.csv are lost" in capsys.readouterr().out


def test_no_column_is_written_that_the_header_lacks(tmp_path, monkeypatch):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0])

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(episodes.files, "create", full)
        _add(writer, 2, [2.0], ["score"], [[7.0]])
    now = episodes.time.monotonic()
    monkeypatch.setattr(episodes.time, "monotonic", lambda: now + 1e4)
    _add(writer, 3, [3.0], ["score"], [[8.0]])
    writer.close()
    found = episodes.read(str(tmp_path))
    assert found["return"].tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(found["score"], [np.nan, np.nan, 8.0])


@pytest.mark.parametrize("failing", ["copyfileobj", "fsync"])
def test_a_copy_that_has_no_room_leaves_none_behind(tmp_path, monkeypatch, failing):
    writer, attempts = _writer(tmp_path), []
    _add(writer, 1, [1.0])

    def full(*unused):
        attempts.append(os.listdir(tmp_path))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner = episodes.shutil if failing == "copyfileobj" else episodes.os
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing, full)
        for step in (2, 3, 4):
            _add(writer, step, [float(step)], ["score"], [[7.0]])
    assert os.listdir(tmp_path) == ["episodes.csv"]
    assert [len(each) for each in attempts] == [2]  # it is not tried again at once
    writer.close()
    assert _returns(tmp_path) == [1.0, 2.0, 3.0, 4.0]


def test_rows_that_are_not_on_the_disk_yet_are_written_once(
    tmp_path, monkeypatch, capsys
):
    writer = _writer(tmp_path)
    _add(writer, 1, [1.0, 2.0])

    def fail(fd):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(episodes.os, "fsync", fail)
        writer.flush(durable=True)
    assert "the disk may lack rows of episodes.csv" in capsys.readouterr().out
    _add(writer, 2, [3.0])
    writer.flush(durable=True)
    assert writer.num_rows == 3
    assert _returns(tmp_path) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("text", ["", "garbage", "a,b\n1,2\n", "\0\0\0\n"])
def test_a_damaged_file_has_no_rows(tmp_path, text):
    (tmp_path / "episodes.csv").write_text(text)
    assert episodes.read(str(tmp_path)) == {}
    assert episodes.read(str(tmp_path / "nothing")) == {}


def test_a_run_begins_on_a_full_disk(tmp_path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(episodes.files.os, "write", full)
        writer = _writer(tmp_path)
        _add(writer, 1, [1.0])
        writer.flush()
    _add(writer, 2, [2.0])
    writer.close()
    assert _returns(tmp_path) == [1.0, 2.0]
