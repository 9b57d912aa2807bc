"""Runs whose checkpoint and config do not belong together."""

import json

import pytest

from impala_mp import errors
from impala_mp.evaluation import saved_run
from impala_mp.storage import checkpoint, workdir
from tests.support import builders


def _saved(path, **overrides):
    config = builders.config(**overrides)
    folder = workdir.Workdir(str(path))
    folder.open(config)
    training = builders.parts(config, folder.checkpoints).training
    training.restore(print)
    assert training.save()
    folder.close()
    return path / "config.json"


def _change(file, group, name, value):
    config = json.loads(file.read_text())
    config[group][name] = value
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("group", "name", "value", "sentence"),
    [
        ("environment", "id", "CartPole-v1", "of another network than"),
        ("network", "hidden_sizes", [8], "of another network than"),
        ("network", "hidden_sizes", [1_000_000, 1_000_000], "MiB of memory to be made"),
    ],
)
def test_a_config_of_another_network_is_a_sentence(
    tmp_path, group, name, value, sentence
):
    file = _saved(tmp_path)
    saved_run.SavedRun(str(tmp_path)).agent()
    _change(file, group, name, value)
    with pytest.raises(errors.BadInput, match=sentence):
        saved_run.SavedRun(str(tmp_path)).agent()


def test_a_checkpoint_of_another_program_is_a_sentence(tmp_path):
    _saved(tmp_path)
    for update, state in enumerate(({"value": 1}, {"learner": 7}, {"learner": {}}), 1):
        checkpoint.save(str(tmp_path / "checkpoints"), update, state)
        with pytest.raises(errors.BadInput, match="no state of a learner"):
            saved_run.SavedRun(str(tmp_path))


def test_a_run_is_not_resumed_with_another_network(tmp_path):
    _saved(tmp_path)
    config = builders.config(**{"network.hidden_sizes": (8,)})
    other = builders.parts(config, tmp_path / "checkpoints").training
    with pytest.raises(errors.BadInput, match="of another network than"):
        other.restore(print)
