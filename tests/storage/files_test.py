"""Files of a run beside planted links, FIFOs, folders and bad copies."""

import os

import pytest

from impala_mp import errors
from impala_mp.monitoring import run_history, status
from impala_mp.storage import checkpoint, crash_file, files, metrics, workdir
from tests.support import builders


def test_a_writer_replaces_a_link_and_leaves_nothing(tmp_path):
    (tmp_path / "victim").write_text("mine")
    for name in ("new", "new.writing"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    files.write_atomically(str(tmp_path / "new"), "content")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "new").read_text() == "content"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomically(str(tmp_path / "folder"), "content")
    assert sorted(os.listdir(tmp_path)) == ["folder", "new", "new.writing", "victim"]


def test_the_umask_sets_the_mode(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(str(tmp_path / "new"), "content")
        files.append(str(tmp_path / "log"), "line\n")
    finally:
        os.umask(before)
    for name in ("new", "log"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_unfinished_files_of_killed_writers_are_removed(tmp_path):
    old, new = (files.temporary_name(str(tmp_path)) for _ in range(2))
    for path in (old, new, str(tmp_path / "novel.writing")):
        files.create(path).close()
    os.utime(old, (0, 0))
    os.utime(tmp_path / "novel.writing", (0, 0))
    files.remove_stale(str(tmp_path))
    assert {*os.listdir(tmp_path)} == {os.path.basename(new), "novel.writing"}


def _link(path):
    (path.parent / "victim").write_text("mine")
    path.symlink_to(path.parent / "victim")


_STRANGE = {"link": _link, "fifo": os.mkfifo, "folder": os.mkdir}


@pytest.mark.parametrize("kind", _STRANGE)
def test_only_regular_files_are_appended_to(tmp_path, kind):
    _STRANGE[kind](tmp_path / "log")
    with pytest.raises(OSError):  # noqa: PT011
        files.append(str(tmp_path / "log"), "line\n")
    if kind == "link":
        assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("kind", _STRANGE)
@pytest.mark.parametrize(
    "name", ["lock", "metrics.jsonl", "changes.jsonl", "logs/learner-0.log"]
)
def test_a_run_refuses_strange_files(tmp_path, kind, name):
    (tmp_path / "logs").mkdir()
    _STRANGE[kind](tmp_path / name)
    with pytest.raises(errors.BadInput, match=r"Remove it, or choose another"):
        workdir.Workdir(str(tmp_path)).check(builders.config())


def test_a_strangers_link_to_a_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "elsewhere")
    workdir.Workdir(str(tmp_path)).check(builders.config())
    if not os.geteuid():  # root's links are trusted
        os.lchown(tmp_path / "logs", 12346, 12346)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(errors.BadInput, match="another user's link"):
        workdir.Workdir(str(tmp_path)).check(builders.config())


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_readers_never_wait_and_give_a_sentence(tmp_path, kind):
    for name in ("config.json", "health.json", "metrics.jsonl", "lock", "1.pt"):
        _STRANGE[kind](tmp_path / name)
    path = str(tmp_path)
    for read in (
        lambda: workdir.read_config(path),
        lambda: workdir.Workdir(path).check(builders.config()),
        lambda: workdir.is_live(path),
        lambda: status.read(path),
        lambda: metrics.last(path),
        lambda: metrics.read(path),
        lambda: run_history.load(path, "agent_steps", "updates"),
        lambda: crash_file.load(str(tmp_path / "1.pt")),
    ):
        with pytest.raises(errors.BadInput):
            read()


@pytest.mark.parametrize("name", ["state.pt", "SHA256"])
def test_a_fifo_in_a_checkpoint_is_damage(tmp_path, name):
    path = checkpoint.save(str(tmp_path), 1, {"value": 1})
    os.unlink(os.path.join(path, name))
    os.mkfifo(os.path.join(path, name))
    with pytest.raises(checkpoint.Damaged, match="incomplete"):
        checkpoint.load(path)


def test_only_numbers_as_they_are_written_are_checkpoints(tmp_path):
    for name in ("3", "12", "007", "²", "٣", "-1", "1_0", "latest"):
        (tmp_path / name).mkdir()
    assert files.updates(str(tmp_path)) == [3, 12]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"environment": {"kwargs": {"a": ' + "[" * 500 + "]" * 500 + "}}}",
        '{"seed": null}',
        '{"seed": -1}',
        '{"seed": "x"}',
        '{"actors": null}',
        '{"environment": {"id": null}}',
        '{"evaluation": {"environments": 0}}',
        '{"network": {"hidden_sizes": [100000000000]}}',
        " " * 2_000_000 + "{}",
    ],
)
def test_a_bad_config_is_a_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(errors.BadInput, match=r"config\.json"):
        workdir.read_config(str(tmp_path))


def test_values_of_another_type_are_no_metrics(tmp_path):
    bad = ['"7"', "null", "[7]", "true", "1e999", "9" * 400, "[" * 100_000]
    lines = [f'{{"agent_steps": {value}}}' for value in bad]
    good = '{"agent_steps": 7, "a": null, "b": "[/x]", "c": {}, "d": [1], "e": 2.5}'
    for text in (good, *lines, " " * 3_000_000 + good):
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write(text + "\n")
    kept = {"agent_steps": 7, "d": [1], "e": 2.5}
    assert metrics.last(str(tmp_path)) == kept
    assert metrics.read(str(tmp_path))[0] == kept
    with pytest.raises(errors.BadInput, match="no record with"):
        run_history.load(str(tmp_path), "agent_steps", "d")


def test_a_name_that_is_no_text_is_a_sentence():
    for read in (workdir.Workdir, workdir.read_config, status.read):
        with pytest.raises(errors.BadInput, match="not UTF-8"):
            read("/tmp/\udcff")


def _check_and_open(path):
    folder = workdir.Workdir(path)
    folder.check(builders.config())
    folder.open(builders.config())


def test_a_loop_of_links_and_a_long_name_are_sentences(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "run", tmp_path / ("n" * 256)):
        for read in (status.read, workdir.read_config):
            with pytest.raises(errors.BadInput):
                read(str(path))
        with pytest.raises(errors.BadInput):
            _check_and_open(str(path))


def test_control_characters_are_shown_as_text():
    shown = files.visible("a\x1b[31m\u202e\udcff\tß\nb")
    assert shown == "a\\x1b[31m\\u202e\\udcff\\tß\nb"
