"""The folder of a run: one live owner, one config."""

import os
import time

import pytest

from impala_mp import errors
from impala_mp.storage import checkpoint, files, workdir
from tests.support import builders, forks


def test_a_new_folder_is_fine_and_only_open_makes_it(tmp_path):
    folder = workdir.Workdir(str(tmp_path / "new"))
    assert folder.check(builders.config()) == []
    assert not os.path.exists(folder.path)
    folder.open(builders.config())
    assert workdir.read_config(folder.path).to_dict()["seed"] == 0
    folder.close()


def test_runs_are_counted_whatever_ends_them(tmp_path):
    def own():
        workdir.Workdir(str(tmp_path)).open(builders.config())
        forks.die()

    for count in range(4):
        if count % 2:
            with forks.child(own) as pid:
                forks.wait(pid)
        else:
            folder = workdir.Workdir(str(tmp_path))
            folder.open(builders.config())
            assert folder.run == count
            folder.close()


@pytest.mark.parametrize(
    "place",
    ["", "crashes", "league", "films", "policies/a/crashes", "checkpoints/best"],
)
def test_unfinished_files_of_an_earlier_run_are_removed(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = files.temporary_name(str(folder))
    files.create(unfinished).close()
    os.utime(unfinished, (0, 0))
    (folder / "mine").write_text("")
    run = workdir.Workdir(str(tmp_path))
    run.open(builders.config())
    run.close()
    assert not os.path.exists(unfinished)
    assert (folder / "mine").exists()


def test_another_config_is_refused_with_its_fields(tmp_path):
    folder = workdir.Workdir(str(tmp_path))
    folder.open(builders.config())
    folder.close()
    other = builders.config(**{"loss.entropy_cost": 0.5, "seed": 3})
    with pytest.raises(errors.BadInput) as refusal:
        workdir.Workdir(str(tmp_path)).check(other)
    assert "loss.entropy_cost is 0.01 there, 0.5 here" in str(refusal.value)
    assert "seed is 0 there, 3 here" in str(refusal.value)


@pytest.mark.parametrize(
    "data", [b"", b'{"seed": 1', bytes(100), b"\xff\xfe{}", b"[1]", b'"seed"']
)
def test_a_damaged_config_is_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    for read in (
        lambda: workdir.read_config(str(tmp_path)),
        lambda: workdir.Workdir(str(tmp_path)).stored(),
        lambda: workdir.Workdir(str(tmp_path)).check(builders.config()),
    ):
        with pytest.raises(errors.BadInput, match=r"config.json: this config is "):
            read()


def test_operational_fields_may_change(tmp_path):
    folder = workdir.Workdir(str(tmp_path))
    folder.open(builders.config())
    folder.close()
    changed = builders.config(total_agent_steps=5, **{"health.max_restarts.actor": 7})
    sentences = workdir.Workdir(str(tmp_path)).check(changed)
    assert sentences == [
        "health.max_restarts.actor changes from 100 to 7.",
        "total_agent_steps changes from 1000000 to 5.",
    ]


def test_strangers_are_refused(tmp_path):
    with pytest.raises(errors.BadInput, match="no config.json"):
        workdir.read_config(str(tmp_path))
    checkpoint.save(str(tmp_path / "checkpoints"), 1, {})
    with pytest.raises(errors.BadInput, match="checkpoints but no config.json"):
        workdir.Workdir(str(tmp_path)).check(builders.config())
    (tmp_path / "file").write_text("")
    for name in ("file", "file/run", "file/deep/run"):
        with pytest.raises(errors.BadInput, match="file is a file"):
            workdir.Workdir(str(tmp_path / name)).check(builders.config())


def _refused(path):
    folder = workdir.Workdir(str(path))
    with pytest.raises(errors.BadInput, match="cannot be written to .*Choose another"):
        folder.open(builders.config())


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    _refused("/proc/run")
    _refused(tmp_path / "a" / "b" / ("n" * 300))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    _refused(tmp_path / "link" / "run")
    assert os.listdir(tmp_path) == ["link"]


def test_a_refused_run_removes_its_own_files_only(tmp_path, monkeypatch):
    def fail(*unused):
        raise OSError("the disk is full")

    monkeypatch.setattr(files, "write_atomically", fail)
    _refused(tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == []
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").write_text("")
    _refused(tmp_path / "old")
    _refused(tmp_path / "old" / "run")
    assert (tmp_path / "old" / "mine").exists()
    assert not (tmp_path / "old" / "run").exists()


def test_a_file_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    files.check_place("output", str(tmp_path / "new.png"))
    files.check_place("output", "new.png")
    with pytest.raises(
        errors.BadInput, match="--output=.*in the folder .*, which does not exist"
    ):
        files.check_place("output", str(tmp_path / "no" / "new.png"))
    with pytest.raises(errors.BadInput, match="cannot be written"):
        files.check_place("output", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(errors.BadInput, match="cannot be written"):
        files.check_place("output", str(tmp_path / "new.png"))


def test_a_live_owner_excludes_others_and_a_dead_one_does_not(tmp_path):
    def own():
        folder = workdir.Workdir(str(tmp_path))
        folder.open(builders.config())
        (tmp_path / "owned").write_text("")
        time.sleep(60.0)

    with forks.child(own):
        deadline = time.monotonic() + 30.0
        while not (tmp_path / "owned").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(errors.BadInput, match="in use by a live run"):
            workdir.Workdir(str(tmp_path)).open(builders.config())
    folder = workdir.Workdir(str(tmp_path))
    folder.open(builders.config())
    folder.close()


@pytest.mark.parametrize("update", [None, 0, 3])
def test_a_new_folder_is_withdrawn_unless_something_was_learned(tmp_path, update):
    folder = workdir.Workdir(str(tmp_path / "a" / "b"))
    folder.open(builders.config())
    if update is not None:
        checkpoint.save(folder.checkpoints, update, {"value": 1})
    folder.withdraw()
    assert os.path.exists(folder.path) is bool(update)
    assert os.path.exists(tmp_path / "a") is bool(update)
    folder.close()
    assert not workdir.is_live(folder.path)
    assert not workdir.is_live(__file__)  # no folder


def test_a_folder_that_was_there_is_not_withdrawn(tmp_path):
    folder = workdir.Workdir(str(tmp_path))
    folder.open(builders.config())
    folder.withdraw()
    assert os.path.exists(tmp_path / "config.json")
