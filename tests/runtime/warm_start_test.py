"""A new run that begins with the weights of another."""

import errno
import json
import shutil

import pytest
import torch

from impala_mp import errors
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.runtime import allocation, preflight, program, warm_start
from impala_mp.storage import checkpoint, files, workdir
from tests.support import builders

_POPART = {"loss.popart": True, "network.normalise_observations": True}


def _train(path, start_from="", steps=60, **overrides):
    config = builders.short_training(total_agent_steps=steps, **overrides)
    program.train(config, str(path), start_from=start_from)


def _state(path, update):
    return checkpoint.load(str(path / "checkpoints" / str(update)))["learner"]


def _newest(path):
    return checkpoint.load_newest(str(path / "checkpoints"), print)["learner"]


@pytest.fixture
def trained(tmp_path):
    """A run of IMPACT with PopArt."""
    _train(tmp_path / "old", **_POPART, algorithm="impact")
    return tmp_path / "old"


def test_everything_fits_and_is_copied(tmp_path, trained):
    new = tmp_path / "new"
    _train(new, str(trained), **_POPART, algorithm="impact")
    before, began, after = _newest(trained), _state(new, 0), _newest(new)
    for name, values in before["parameters"].items():
        assert torch.equal(began["parameters"][name], values), name
    # IMPACT's target network is a copy of the weights, not of fresh ones.
    flat = began["algorithm"]["target"].view(torch.uint8).numpy().tobytes()
    first = next(iter(began["parameters"].values()))
    bias = before["parameters"]["policy.bias"].numpy().tobytes()
    assert bias in flat
    assert first.isfinite().all()
    assert torch.equal(began["popart_batches"], before["popart_batches"])
    assert (began["updates"], began["agent_steps"]) == (0, 0)
    assert all(not each.any() for each in began["optimizer"].values())
    assert after["updates"] == before["updates"]
    lineage = json.loads((new / "lineage.json").read_text())
    assert (lineage["run"], lineage["update"]) == (str(trained), before["updates"])
    assert set(lineage["arrays"].values()) == {"copied"}
    assert lineage["before"] is None
    third = tmp_path / "third"
    _train(third, f"{new}:0", **_POPART, algorithm="impact")
    lineage = json.loads((third / "lineage.json").read_text())
    assert lineage["before"]["run"] == str(trained)
    assert lineage["update"] == 0


def _compare(path, **overrides):
    config = builders.short_training(**overrides)
    environment = factory.probe(config.environment)
    policy = agent.make(config, environment)
    folder = workdir.Workdir(str(path / "not there"))
    own = allocation.Policy("", config, None, environment, policy)
    (start,) = warm_start.read(str(path), folder, config, [own])
    return start, policy


def test_a_module_fits_as_a_whole_or_not_at_all(trained):
    start, _ = _compare(trained, **_POPART, **{"network.hidden_sizes": (16, 8)})
    fates = start.fates
    assert fates["torso.encoder.0.weight"] == "copied"
    assert fates["torso.encoder.2.weight"] == "not there"
    assert fates["policy.weight"] == "[3, 16] there, [3, 8] here"
    assert fates["policy.bias"] == fates["baseline.mean"] == "left out with its module"
    assert "baseline.mean" not in start.arrays
    assert start.popart_batches is None  # a fresh head begins with its first batch
    text = "\n".join(warm_start.sentences(start))
    assert "Not copied: policy.weight ([3, 16] there, [3, 8] here)." in text


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_values_stay_what_they_are_with_popart_and_without(tmp_path, there, here):
    _train(tmp_path / "old", **{"loss.popart": there}, steps=300)
    parameters = _newest(tmp_path / "old")["parameters"]
    if there:
        assert parameters["baseline.variance"] != 1.0
    start, policy = _compare(tmp_path / "old", **{"loss.popart": here})
    policy.network.load_state_dict(start.arrays)
    source, _ = _compare(tmp_path / "old", **{"loss.popart": there})
    original = agent.make(
        builders.short_training(**{"loss.popart": there}),
        factory.probe(builders.short_training().environment),
    )
    original.network.load_state_dict(source.arrays)
    inputs = torch.randn(5, 16)
    torch.testing.assert_close(
        policy.network.baseline(inputs), original.network.baseline(inputs)
    )
    assert (start.popart_batches > 0).all()  # not rescaled by the first batch


_BY_VALUE = {
    "evaluation.greedy": True,
    "vtrace.lambda_": 0.95,
    "target.period": 3,
    "loss.popart_beta": 0.1,
}
_FIXED = {"algorithm": "iqn", "iqn.fractions": "fixed"}


@pytest.mark.parametrize(
    "kind", [{"algorithm": "dqn"}, {"algorithm": "iqn"}, _FIXED], ids=str
)
@pytest.mark.parametrize("here", [False, True])
def test_action_values_stay_what_they_are_and_are_learned_on(tmp_path, here, kind):
    old, new = tmp_path / "old", tmp_path / "new"
    _train(old, **_BY_VALUE, **kind, **{"loss.popart": True}, steps=300)
    common = {k: v for k, v in _BY_VALUE.items() if here or "popart" not in k}
    changed = {**common, **kind, "loss.popart": here}
    _train(new, str(old), **changed)
    before, began = _newest(old), _state(new, 0)
    if here:
        assert torch.equal(began["popart_batches"], before["popart_batches"])
    environment = factory.probe(builders.short_training().environment)
    values = []
    for state, overrides in ((before, {"loss.popart": True}), (began, changed)):
        config = builders.short_training(**{**kind, **overrides})
        policy = agent.make(config, environment)
        policy.network.load_state_dict(state["parameters"])
        torch.manual_seed(0)
        values.append(policy.network.baseline(torch.randn(4, 5, 16)))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [
        (":7000", "has no checkpoint 7000. It has"),
        (":newst", "'newst' is no checkpoint. Use newest, best or the number"),
        ("/checkpoints", "has no config.json"),
    ],
)
def test_a_source_that_is_not_there(tmp_path, trained, suffix, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        _train(tmp_path / "new", f"{trained}{suffix}")
    assert not (tmp_path / "new").exists()


def test_the_best_checkpoint_is_a_source(tmp_path, trained):
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    _train(tmp_path / "new", f"{source}:best")
    lineage = json.loads((tmp_path / "new" / "lineage.json").read_text())
    newest = files.newest_update(str(source / "checkpoints"))
    assert lineage["update"] == newest  # which was the best
    shutil.rmtree(source / "checkpoints" / "best")
    with pytest.raises(errors.BadInput, match=r"has no checkpoint best\. It has"):
        _train(tmp_path / "other", f"{source}:best")


def test_a_kept_policy_is_a_source(tmp_path, trained):
    """Its folder has a config and the best checkpoint, and no other."""
    kept = tmp_path / "kept"
    shutil.copytree(trained / "checkpoints" / "best", kept / "checkpoints" / "best")
    shutil.copy(trained / "config.json", kept)
    _train(tmp_path / "new", f"{kept}:best")
    with pytest.raises(errors.BadInput, match=r"no checkpoint newest. It has best\."):
        _train(tmp_path / "other", str(kept))


def test_nothing_that_fits_is_refused(tmp_path, trained):
    with pytest.raises(errors.BadInput, match="no array fits"):
        _train(tmp_path / "new", str(trained), **{"network.hidden_sizes": (8,)})
    assert not (tmp_path / "new").exists()


def test_the_same_command_resumes(tmp_path, trained, capsys):
    new, settings = tmp_path / "new", {**_POPART, "algorithm": "impact"}
    _train(new, str(trained), **settings)
    updates = _newest(new)["updates"]
    _train(new, str(trained), steps=120, **settings)
    assert _newest(new)["updates"] == 2 * updates
    assert "It resumes with what it has learned." in capsys.readouterr().out
    with pytest.raises(errors.BadInput, match=r"began from .*old:\d+. Leave out"):
        _train(new, str(new), **settings)
    with pytest.raises(errors.BadInput, match=r"began from .*old:\d+. Leave out"):
        _train(new, f"{trained}:7000", **settings)
    with pytest.raises(errors.BadInput, match="began with fresh weights"):
        _train(trained, str(new), **settings)


def test_a_run_that_was_killed_before_its_first_weights_is_not_fresh(
    tmp_path, trained, monkeypatch
):
    new, settings = tmp_path / "new", {**_POPART, "algorithm": "impact"}

    def die(*unused, **others):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die)
        with pytest.raises(KeyboardInterrupt):
            _train(new, str(trained), **settings)
    with pytest.raises(errors.BadInput, match="Name --start_from again"):
        _train(new, **settings)
    _train(new, str(trained), **settings)
    assert _state(new, 0)["parameters"].keys() == _newest(new)["parameters"].keys()


def test_a_full_disk_leaves_nothing(tmp_path, trained, monkeypatch):
    def full(*unused, **others):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(errors.BadInput, match="cannot be written .*No space left"):
        _train(tmp_path / "new", str(trained), **_POPART, algorithm="impact")
    assert not (tmp_path / "new").exists()


def test_the_check_says_what_fits(tmp_path, trained, capsys):
    settings = {**_POPART, "algorithm": "impact"}
    preflight.check(builders.short_training(**settings), None, (), str(trained))
    assert "copied torso.normaliser.count" in capsys.readouterr().out
