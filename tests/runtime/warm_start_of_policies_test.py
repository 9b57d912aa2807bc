"""New runs of several policies that begin with the weights of another run."""

import json

import pytest
import torch

from impala_mp import errors
from impala_mp.evaluation import conclusion
from impala_mp.runtime import preflight, program
from impala_mp.storage import checkpoint, workdir
from tests.support import policy_parts

_NAMES = ("player_0", "player_1")
_OTHER_NAMES = {"first": "player_0", "second": "player_1"}


@pytest.fixture(scope="module", autouse=True)
def _without_conclusion():
    """No run is evaluated at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conclusion, "conclude", lambda *unused: None)
        yield


def _config(names=None, sharing="each", **overrides):
    settings = {"total_agent_steps": 4 * 112, "checkpoint.keep_last": 9}
    config = policy_parts.config(**settings, **overrides)
    config.policies = {"player_1": {"algorithm": "dqn"}} if not names else {}
    config.environment.sharing = sharing
    if sharing == "all":
        config.policies = {}
    if names:
        config.environment.sharing = "all"
        config.environment.policies = names
    return config


def _train(path, start_from="", **overrides):
    program.train(_config(**overrides), str(path), start_from=start_from)


def _newest(path, policy):
    folder = workdir.Workdir(str(path)).checkpoints_of(policy)
    return checkpoint.load_newest(folder, print)["learner"]


def _first(path, policy):
    folder = workdir.Workdir(str(path)).checkpoints_of(policy)
    return checkpoint.load(f"{folder}/0")["learner"]


def _assert_copied(mine, theirs):
    assert mine["parameters"].keys() == theirs["parameters"].keys()
    for name, values in theirs["parameters"].items():
        assert torch.equal(mine["parameters"][name], values), name
    assert (mine["updates"], mine["agent_steps"]) == (0, 0)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A run of two policies."""
    path = tmp_path_factory.mktemp("several") / "old"
    _train(path)
    return path


def test_each_policy_starts_from_the_one_of_its_name(tmp_path, old, capsys):
    new = tmp_path / "new"
    _train(new, str(old))
    for name in _NAMES:
        _assert_copied(_first(new, name), _newest(old, name))
    lineage = json.loads((new / "lineage.json").read_text())
    assert lineage["run"] == str(old)
    assert lineage["agent_steps"] == sum(_newest(old, x)["agent_steps"] for x in _NAMES)
    assert {*lineage["arrays"].values()} == {"copied"}
    assert {x.split("/")[0] for x in lineage["arrays"]} == {*_NAMES}
    text = " ".join(capsys.readouterr().out.split())
    assert "Policy player_1: Starting from" in text
    assert "old, policy player_1, update" in text
    before = [_newest(new, name)["updates"] for name in _NAMES]
    _train(new, str(old))  # resumes
    assert [_newest(new, name)["updates"] for name in _NAMES] == before
    assert "It resumes with what it has learned." in capsys.readouterr().out


def test_a_run_of_one_policy_starts_all(tmp_path, capsys):
    single, new = tmp_path / "single", tmp_path / "new"
    _train(single, sharing="all")
    assert preflight.check(_config(names=_OTHER_NAMES), None, (), str(single))
    assert "Policy second: Starting from" in capsys.readouterr().out
    _train(new, str(single), names=_OTHER_NAMES)
    for name in _OTHER_NAMES:
        _assert_copied(_first(new, name), _newest(single, ""))
    lineage = json.loads((new / "lineage.json").read_text())
    assert lineage["agent_steps"] == _newest(single, "")["agent_steps"]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"names": _OTHER_NAMES}, "policies player_0, player_1, and none for first, s"),
        ({"sharing": "all"}, "policies player_0, player_1, and a single policy plays"),
    ],
)
def test_a_policy_without_a_source_is_refused(tmp_path, old, overrides, text):
    with pytest.raises(errors.BadInput, match=text):
        _train(tmp_path / "new", str(old), **overrides)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (":7000", "has no checkpoint 7000 of policy player_0. It has newest"),
        (":best", "has no checkpoint best of policy player_0. It has newest"),
    ],
)
def test_a_checkpoint_that_a_policy_has_not(tmp_path, old, suffix, text):
    with pytest.raises(errors.BadInput, match=text):
        _train(tmp_path / "new", f"{old}{suffix}")


def test_a_run_killed_between_two_first_checkpoints_is_not_fresh(
    tmp_path, old, monkeypatch
):
    """The policy that has one is written again, for the source may have moved on."""
    new, save, saved = tmp_path / "new", checkpoint.save, []

    def die(folder, name, state, **others):
        if saved:
            raise KeyboardInterrupt
        saved.append(folder)
        parameters = state["learner"]["parameters"]
        zeros = {name: torch.zeros_like(values) for name, values in parameters.items()}
        state["learner"]["parameters"] = zeros
        return save(folder, name, state, **others)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die)
        with pytest.raises(KeyboardInterrupt):
            _train(new, str(old))
    assert saved
    with pytest.raises(errors.BadInput, match="Name --start_from again"):
        _train(new)
    _train(new, str(old))
    for name in _NAMES:
        _assert_copied(_first(new, name), _newest(old, name))


def test_a_run_that_began_with_fresh_weights_stays_so(tmp_path, old):
    """Also if only one of its policies has a checkpoint."""
    new = tmp_path / "new"
    _train(new)
    workdir_of_second = workdir.Workdir(str(new)).checkpoints_of("player_1")
    for each in checkpoint.files.updates(workdir_of_second):
        (new / "policies" / "player_1" / "checkpoints" / str(each)).rename(
            tmp_path / str(each)
        )
    with pytest.raises(errors.BadInput, match="began with fresh weights"):
        _train(new, str(old))


def test_a_population_has_no_source(tmp_path, old):
    config = _config(sharing="all")
    config.environment.id = "Catch"
    config.environment.sharing = "all"
    config.actors.count = config.population.size = 2
    config.population.ranges.entropy_cost = (1e-3, 1e-2)
    with pytest.raises(errors.BadInput, match="does not go with a population"):
        program.train(config, str(tmp_path / "new"), start_from=str(old))
