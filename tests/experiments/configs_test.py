"""The configs of the experiments."""

import importlib.util
import pathlib

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import derived, fields, validation

_EXPERIMENTS = sorted(
    (pathlib.Path(__file__).resolve().parents[2] / "experiments").glob("*.py")
)


def _variants(get_config):
    try:
        get_config("?")
    except errors.BadInput as error:
        return str(error).split("Choose among ")[1].split(".")[0].split(", ")
    except TypeError:
        return [None]
    # Any game.
    return ["Pong", "Pong-deep", "Breakout-shallow-sticky", "Pong-dqn", "Pong-iqn-deep"]


def _import(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", _EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_are_valid(path):
    module = _import(path)
    for variant in _variants(module.get_config):
        config = module.get_config(variant) if variant else module.get_config()
        validation.validate(config, num_cores=2)
        again = config_lib.from_json(config_lib.to_json(config))
        assert fields.differences(config, again) == {}


_ARMS = {  # what each arm of the comparison may have of its own
    "-replay": {"batch_size", "replay.ratio", "replay.memory_mib"},
    "-impact": {
        *("algorithm", "learner.passes", "target.period"),
        *(f"impact.{x}" for x in ("clip_range", "kl_cost", "normalise_advantages")),
    },
    "-twice": {"learner.passes"},
}


@pytest.mark.parametrize("kind", _ARMS)
def test_arms_of_a_comparison_differ_in_the_algorithm_only(kind):
    get_config = _import(
        next(p for p in _EXPERIMENTS if p.stem == "minatar")
    ).get_config
    base, arm = (get_config(f"Breakout{each}-study") for each in ("", kind))
    assert set(fields.differences(base, arm)) == _ARMS[kind]
    for config in (base, arm):  # each update learns one unroll, made right before it
        assert config.runtime.mode == "lockstep"
        assert config.actors.count == config.actors.slots == 1
        assert derived.num_fresh(config) == config.actors.environments
