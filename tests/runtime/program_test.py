"""One training and its refusals, in this process."""

import errno
import gc
import os
import resource

import pytest

from impala_mp import errors
from impala_mp.config import schedules, validation
from impala_mp.runtime import calibration, program
from tests.support import builders


def _everything(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_refused_run_leaves_the_folder_of_another_as_it_was(tmp_path):
    path = tmp_path / "run"
    program.train(builders.short_training(), str(path))
    for state in path.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"")
    before = _everything(path)
    with pytest.raises(errors.BadInput, match="none of the"):
        program.train(builders.short_training(total_agent_steps=600), str(path))
    assert _everything(path) == before


def test_processes_find_code_by_value_in_the_run(tmp_path, monkeypatch):
    """The folder that it came from may be removed before the run ends."""
    found = []
    monkeypatch.setattr(
        program.trust, "add_by_value", lambda config, path: found.append(path)
    )
    program.train(builders.short_training(), str(tmp_path / "run"))
    assert found == [str(tmp_path / "run")]


def test_a_training_leaves_no_descriptor(tmp_path):
    """A notebook trains hundreds of times in one process."""
    opened = []
    for name in ("first", "second"):  # the first starts what stays: the fork server
        builders.train_in_processes(
            builders.config(total_agent_steps=60), tmp_path / name
        )
        gc.collect()  # memory in cycles, which is collected when it likes
        opened.append(len(os.listdir("/proc/self/fd")))
    assert opened[0] == opened[1]


@pytest.mark.parametrize("automatic", [False, True])
def test_each_schedule_is_parsed_and_the_config_validated_once(
    tmp_path, monkeypatch, automatic
):
    texts = ["linear(0.2, 0.1, 100)", "constant(0.02)"]
    overrides = dict(
        zip(("schedules.epsilon", "schedules.entropy_cost"), texts, strict=True)
    )
    if automatic:
        overrides |= {"actors.count": 0, "learner.micro_batches": 0}
    calls = []

    def watch(module, name, entry):
        function = getattr(module, name)

        def watched(*args):
            calls.append(entry(*args))
            return function(*args)

        monkeypatch.setattr(module, name, watched)

    watch(schedules, "parse", lambda text: text)
    watch(validation, "validate", lambda *args: "validated")
    watch(validation, "check_relations", lambda *args: "related")
    monkeypatch.setattr(calibration, "_SECS", 0.01)
    program.train(builders.short_training(**overrides), str(tmp_path / "run"))
    again = ["related"] if automatic else []  # calibration has changed the config
    assert calls == ["validated", *texts, "related", *again]


def test_memory_that_cannot_be_had_is_found_before_a_folder_is_made(
    tmp_path, monkeypatch
):
    def refuse(fd, offset, size):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(errors.BadInput, match="MiB are available. Lower"):
        program.train(builders.short_training(), str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_too_few_descriptors_are_found_before_a_folder_is_made(tmp_path, monkeypatch):
    real = resource.getrlimit
    monkeypatch.setattr(
        resource,
        "getrlimit",
        lambda kind: (40, 40) if kind == resource.RLIMIT_NOFILE else real(kind),
    )
    config = builders.short_training(
        **{"runtime.mode": "processes", "actors.count": 40}
    )
    with pytest.raises(errors.BadInput, match="or lower config.actors.count"):
        program.train(config, str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_asked_for_fewer_steps_is_told_so(tmp_path, capsys):
    config = builders.short_training()
    program.train(config, str(tmp_path / "run"))
    done = config.total_agent_steps
    capsys.readouterr()
    config.total_agent_steps = done // 2
    program.train(config, str(tmp_path / "run"))
    assert f"total_agent_steps ({done // 2:,}) are learned" in capsys.readouterr().out
