"""Content of a run's folder for its report, also of damaged and old folders."""

import json
import os
import stat

import pytest

from impala_mp import errors
from impala_mp.monitoring import report
from tests.support import records, run_folder


@pytest.fixture
def folder(tmp_path):
    run_folder.write(tmp_path)
    return tmp_path


def test_a_whole_folder(folder):
    run = report.read(str(folder))
    assert run.notes == []
    assert run.changed == {"total_agent_steps": (300_000, records.TOTAL)}
    assert len(run.records) == 200
    assert run.resumes == [500_000]
    assert [each["policy"] for each in run.evaluations] == ["random"] + ["greedy"] * 3
    assert set(run.final) == {"greedy", "sampled"}
    assert (run.health.state, run.health.is_well) == ("finished", True)
    assert [each["run"] for each in run.lineage] == ["/runs/parent", "/runs/older"]
    assert len(run.journal) == 1
    assert run.film == run_folder.GIF
    assert run.starts == 2
    assert run.findings == []


_OPTIONAL = ("evaluations.jsonl", "evaluation.json", "changes.jsonl", "lineage.json")
_OPTIONAL += ("film.gif", "lock")


def test_an_old_run_has_fewer_files(folder):
    for name in _OPTIONAL:
        (folder / name).unlink()
    run = report.read(str(folder))
    assert run.notes == []
    assert not any((run.evaluations, run.final, run.journal, run.lineage, run.film))


def test_an_old_run_has_its_evaluations_in_the_records(tmp_path):
    sparse = {"evaluation__return_mean": 5.0, "evaluation__return_max": 7.0}
    run_folder.write(tmp_path, records.make(3, **sparse))
    (tmp_path / "evaluations.jsonl").unlink()
    found = report.read(str(tmp_path)).evaluations
    assert [(e["mean"], e["max"]) for e in found] == [(5.0, 7.0)] * 3


@pytest.mark.parametrize("kept", ["config.json", "metrics.jsonl", "health.json"])
def test_one_file_is_enough(folder, kept):
    for path in folder.iterdir():
        if path.name != kept:
            path.unlink()
    run = report.read(str(folder))
    assert len(run.notes) == (kept != "config.json") + (kept != "health.json")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_run_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.BadInput, match="has no run"):
        report.read(str(tmp_path / name))


_FILES = ("config.json", "metrics.jsonl", "health.json", *_OPTIONAL)


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff{",
        b"[" * 100_000,
        b'"x"\n',
        b"[1, null]\n",
        b"{}\n",
        b'{"agent_steps": "x", "greedy": 3, "before": [], "mean": {}}\n',
        b"null\nnull\n",
    ],
    ids=["empty", "binary", "deep", "text", "list", "object", "types", "null"],
)
def test_a_damaged_file_leaves_the_rest(folder, name, content):
    (folder / name).write_bytes(content)
    run = report.read(str(folder))
    assert len(run.notes) <= 1
    assert bool(run.records) == (name != "metrics.jsonl")


@pytest.mark.parametrize("name", _FILES)
def test_a_folder_or_a_pipe_in_place_of_a_file(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert stat.S_ISFIFO(os.lstat(folder / name).st_mode)
    report.read(str(folder))
    (folder / name).unlink()
    (folder / name).mkdir()
    assert report.read(str(folder)).health.state == (
        "" if name in ("health.json", "lock") else "finished"
    )


def test_a_killed_run(folder):
    text = (folder / "health.json").read_text().replace("finished", "running")
    (folder / "health.json").write_text(text)
    run = report.read(str(folder))
    assert (run.health.state, run.health.is_well) == ("killed", False)


def test_a_film_that_is_too_large_is_left_out(folder, monkeypatch):
    monkeypatch.setattr(report, "_MAX_FILM_BYTES", 10)
    run = report.read(str(folder))
    assert run.film == b""
    assert "it is larger than 10 bytes" in run.notes[0]


def test_a_lineage_without_an_end_is_cut(folder):
    lineage = {"run": "a"}
    for _ in range(100):
        lineage = {"run": "a", "before": lineage}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    assert len(report.read(str(folder)).lineage) == 20
