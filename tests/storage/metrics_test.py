"""The files of a run's numbers: whole lines, rewound where a run goes on."""

import errno
import json
import os
import threading
import time
import weakref

import pytest
from tensorboard.backend.event_processing import event_accumulator

from impala_mp.monitoring import display, report, run_history, run_state, status
from impala_mp.storage import metrics
from tests.support import records, run_folder


def _record(agent_steps, **more):
    return {
        "agent_steps": agent_steps,
        "env_frames": agent_steps,
        "updates": agent_steps // 10,
        "time_secs": agent_steps / 100,
        **more,
    }


def _write(folder, steps):
    writer = metrics.Writer(str(folder))
    for step in steps:
        writer.write(_record(step))
    writer.close()


def _steps(folder):
    return [record["agent_steps"] for record in metrics.read(str(folder))]


def _tensorboard(folder, tag):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)]


def test_a_written_record_is_read(tmp_path):
    writer = metrics.Writer(str(tmp_path))
    record = _record(100, **{"loss/total": 1.5, "lag/mean": float("nan")})
    writer.write(record)
    writer.close()
    del record["lag/mean"]
    assert metrics.read(str(tmp_path)) == [record]
    assert _tensorboard(tmp_path, "loss/total") == [(100, 1.5)]
    assert _tensorboard(tmp_path, "progress/updates") == [(100, 10.0)]


def test_no_run_has_no_records(tmp_path):
    assert metrics.read(str(tmp_path)) == []


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path):
    _write(tmp_path, [10, 20])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"agent_steps": 30, "upd')
    assert _steps(tmp_path) == [10, 20]
    _write(tmp_path, [40])
    assert _steps(tmp_path) == [10, 20, 40]
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_damaged_lines_of_a_power_cut_are_left_out(tmp_path):
    _write(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(bytes(100) + b"\n")
        file.write(b'{"agent_steps": 25, "upd\n12\n{}\n\xff\xfe\n')
        file.write(json.dumps(_record(30)).encode() + b"\n")
        file.write(bytes(100))
    assert _steps(tmp_path) == [10, 20, 30]
    writer = metrics.Writer(str(tmp_path))
    writer.write(_record(40))
    writer.rewind({"agent_steps": 35})
    writer.write(_record(45))
    writer.close()
    assert _steps(tmp_path) == [10, 20, 30, 45]


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
def test_a_long_file_is_read_from_its_end(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "metrics.jsonl"
    records = [{"agent_steps": n, "x": [1] * (7 * n % 5)} for n in (10, 20, 30, 40)]
    lines = [json.dumps(record) + "\n" for record in records]
    whole = "".join(lines)
    for cut in range(len(whole) + 1):
        path.write_text(whole[:cut])
        kept = whole[:cut].count("\n")
        expected = records[kept - 1] if kept else {}
        assert metrics.last(str(tmp_path)) == expected
        for number in (*range(kept + 1), 99):
            path.write_text(whole[:cut])
            with open(path, "rb") as file:
                end = metrics._end_of_newest(
                    file, lambda record, n=number: record["agent_steps"] <= 10 * n
                )
            assert end == sum(map(len, lines[: min(number, kept)]))


def test_a_rewind_and_a_look_read_no_more_than_they_need(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    with open(path, "w") as file:
        file.writelines(f"{json.dumps(_record(n))}\n" for n in range(20_000))
    read, load = [], json.loads
    monkeypatch.setattr(
        metrics.json, "loads", lambda text: read.append(text) or load(text)
    )
    writer = metrics.Writer(str(tmp_path))
    writer.rewind({"agent_steps": 19_900})
    writer.close()
    assert metrics.last(str(tmp_path))["agent_steps"] == 19_900
    assert len(read) < 110


def test_a_file_of_any_size_is_read_and_resumed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(tmp_path, [10])
    with open(path, "ab") as file:
        file.truncate(2**35)  # a hole, which takes no space
        file.seek(0, os.SEEK_END)
        file.write(f"\n{json.dumps(_record(20))}\n{json.dumps(_record(30))}\n".encode())
    writer = metrics.Writer(str(tmp_path))
    writer.rewind({"agent_steps": 20})
    writer.close()
    assert metrics.last(str(tmp_path)) == _record(20)
    assert next(metrics.records(str(tmp_path))) == _record(10)


class _Record(dict):
    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "reader",
    [
        lambda path: display.Display(run_state.Facts("", 0, folder=path)),
        status.load,
        report.read,
        lambda path: run_history.read(path, "agent_steps"),
        lambda path: run_history.load(path, "updates", "agent_steps"),
    ],
    ids=["display", "status", "report", "curves", "numbers"],
)
def test_no_reader_holds_the_records_of_a_long_run(tmp_path, monkeypatch, reader):
    run_folder.write(tmp_path, records.make(300, updates=7))
    alive, peak, parse = weakref.WeakSet(), [], metrics._record

    def watched(line):
        record = _Record(parse(line))
        alive.add(record)
        peak.append(len(alive))
        return record

    monkeypatch.setattr(metrics, "_record", watched)
    reader(str(tmp_path))
    assert len(peak) >= 300
    assert max(peak) <= 3


def test_damaged_lines_at_the_end_are_dropped(tmp_path):
    """As a power cut leaves them."""
    _write(tmp_path, [10, 20])
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b"\0\0\0\n{\n\xff")
    _write(tmp_path, [30])
    assert _steps(tmp_path) == [10, 20, 30]


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    writer = metrics.Writer(str(tmp_path))
    writer.write(_record(10))
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        with pytest.raises(OSError, match="No space left"):
            writer.write(_record(20))
    writer.write(_record(30))
    writer.close()
    assert _steps(tmp_path) == [10, 30]
    assert len(list(tmp_path.glob("events.*"))) == 1  # TensorBoard's was whole


def _event_threads():
    names = [type(thread).__name__ for thread in threading.enumerate()]
    return names.count("_AsyncWriterThread")


def test_tensorboards_file_is_closed_after_an_error(tmp_path, monkeypatch):
    before = _event_threads()
    writer = metrics.Writer(str(tmp_path))
    writer.write(_record(10))
    with monkeypatch.context() as patched:

        def full(*unused):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(writer._events, "add", full)
        with pytest.raises(OSError, match="No space left"):
            writer.write(_record(20))
    assert _event_threads() == before
    writer.write(_record(30, **{"loss/total": 1.5}))
    assert _event_threads() == before + 1
    writer.close()
    assert _event_threads() == before
    assert _tensorboard(tmp_path, "loss/total") == [(30, 1.5)]


def test_a_record_made_after_its_checkpoint_is_removed(tmp_path):
    """Or `time_secs` would run backwards."""
    writer = metrics.Writer(str(tmp_path))
    writer.write(_record(10, time_secs=1.0))
    writer.write(_record(20, time_secs=9.0))  # the checkpoint is of 5.0
    writer.rewind({"agent_steps": 20, "time_secs": 5.0})
    writer.write(_record(25, time_secs=5.5))
    writer.close()
    assert _steps(tmp_path) == [10, 25]


def test_a_rewound_run_has_neither_gap_nor_overlap(tmp_path):
    writer = metrics.Writer(str(tmp_path))
    for step in (10, 20, 30):
        writer.write(_record(step, **{"loss/total": 1.0}))
    time.sleep(1.1)  # TensorBoard orders its files by the second
    writer.rewind({"agent_steps": 20})
    for step in (25, 35):
        writer.write(_record(step, **{"loss/total": 2.0}))
    writer.close()
    assert _steps(tmp_path) == [10, 20, 25, 35]
    expected = [(10, 1.0), (20, 1.0), (25, 2.0), (35, 2.0)]
    assert _tensorboard(tmp_path, "loss/total") == expected
