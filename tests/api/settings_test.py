"""The config that `im.train` makes of Python values, and what it refuses."""

import pathlib
import sys
import threading

import gymnasium
import numpy as np
import pytest

from impala_mp import config as config_lib, errors
from impala_mp.api import settings
from impala_mp.config import fields, user_code
from tests.support import lockstep_runs

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _make(folder, environment="Acrobot-v1", config=None, /, **given):
    return settings.make(environment, config, given, str(folder))


def test_fields_by_name_by_dots_and_as_dicts(tmp_path):
    made = _make(
        tmp_path,
        seed=np.int64(3),
        total_agent_steps=1e5,
        optimizer={"learning_rate": 3e-4, "name": "adam"},
        network=dict(hidden_sizes=[8, 8]),
        environment={"kwargs.goal": (1, 2), "kwargs": {"size": 5}},
        batch_size="auto",
        **{"loss.entropy_cost": 0},
    )
    expected = {
        "environment.id": "Acrobot-v1",
        "seed": 3,
        "total_agent_steps": 100_000,
        "optimizer.learning_rate": 3e-4,
        "network.hidden_sizes": (8, 8),
        "loss.entropy_cost": 0.0,
        "batch_size": 0,
    }
    assert {name: fields.get(made, name) for name in expected} == expected
    assert made.environment.kwargs.to_dict() == {"goal": (1, 2), "size": 5}
    assert fields.from_json(fields.to_json(made)).environment.kwargs.goal == (1, 2)
    assert config_lib.get_base_config().seed == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"lr": 1e-3}, "no field config.lr. Did you mean 'optimizer.learning_rate'"),
        ({"learning_rate": 1}, "Did you mean 'optimizer.learning_rate'"),
        ({"optimizer": 1e-3}, r"optimizer \(0.001\) must be a dict of its fields"),
        ({"environment": {"kwargs": 3}}, r"environment.kwargs \(3\) must be a dict"),
        ({"seed": None}, r"seed \(None\) must be of type int"),
        ({"total_agent_steps": 1.5}, r"\(1.5\) must be of type int"),
        ({"optimizer.name": 3}, r"optimizer.name \(3\) must be of type str"),
        ({"network.torso": 3}, "network.torso is a int"),
        ({"network": {"encoders": {"a.b": "mlp"}}}, "no field config.network.encoders"),
        ({"network.encoders.a": 3}, "network.encoders.a is a int"),
        ({"environment.kwargs.x.y": 1}, "no field config.environment.kwargs.x.y"),
        ({"environment": {"kwargs": {"x": {"a.b": 1}}}}, "kwargs.x: 'a.b' has a dot"),
        ({"policies": 3}, r"policies \(3\) must be a dict of its fields"),
        ({"policies.red": 3}, r"policies.red \(3\) must be a dict of its fields"),
        ({"policies.red.lr": 3}, "config.policies.red.lr. Did you mean 'optimizer.le"),
        ({"policies.red.network.core": 3}, "policies.red.network.core is a int"),
        ({"policies.update.seed": 3}, "a policy cannot be called 'update'"),
    ],
)
def test_refusals_name_the_field(tmp_path, given, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        _make(tmp_path, **given)


def test_fields_of_a_policy_by_dots_and_as_dicts(tmp_path):
    made = _make(
        tmp_path,
        policies={"red": {"loss.entropy_cost": 0.1, "batch_size": np.int64(8)}},
        **{
            "policies.red.loss": {"discount_factor": 0.9},
            "policies.red.network.encoders.image": "mlp",
            "policies.seed.network.torso": _Local,
        },
    )
    assert fields.flatten(made.policies) == {
        "red.batch_size": 8,
        "red.loss.discount_factor": 0.9,
        "red.loss.entropy_cost": 0.1,
        "red.network.encoders.image": "mlp",
        "seed.network.torso": f"{__name__}:_Local",
    }


def test_an_argument_of_another_type_is_refused(tmp_path):
    config = config_lib.get_base_config()
    config.environment.kwargs = {"size": 5, "limits": {"high": 1}}
    limits = {"environment.kwargs.limits.high": 2}
    assert _make(tmp_path, None, config, **limits).environment.kwargs.limits.high == 2
    with pytest.raises(errors.BadInput, match=r"kwargs.size: .*'size'. big is of"):
        _make(tmp_path, None, config, **{"environment.kwargs.size": "big"})


def test_a_name_means_what_it_means_to_impala_train(tmp_path):
    preset = _make(tmp_path, "MinAtar/Breakout-v1")
    assert preset.environment.id.endswith("MinAtar/Breakout-v1")
    assert preset.network.torso == _make(tmp_path, "minatar:Breakout").network.torso
    assert _make(tmp_path, "Acrobot-v1").algorithm == "impact"
    config = config_lib.get_base_config()
    config.seed = 7
    assert _make(tmp_path, "Acrobot-v1", config).seed == 7
    assert (
        _make(tmp_path, None, str(_ROOT / "experiments/catch.py")).environment.id
        == "Catch"
    )
    with pytest.raises(errors.BadInput, match="config is a dict"):
        _make(tmp_path, "Acrobot-v1", {"seed": 1})


class _Local(gymnasium.Env):
    """A class of this module, found again by its name."""


def test_what_a_module_has_goes_by_name_and_the_rest_by_value(tmp_path):
    made = _make(tmp_path, _Local)
    assert made.environment.id == f"{__name__}:_Local"
    assert not list(tmp_path.iterdir())

    class Inner(_Local):
        pass

    made = _make(tmp_path, [Inner, lambda: Inner()])
    names = made.environment.id.split(",")
    assert [each.partition(":")[2] for each in names] == ["Inner", "lambda"]
    assert len(list(tmp_path.iterdir())) == 2
    sys.path.append(str(tmp_path))
    try:
        module = user_code.import_module("id", names[0], names[0].partition(":")[0])
        assert module.Inner.__name__ == "Inner"
    finally:
        sys.path.remove(str(tmp_path))


def test_an_id_of_this_process_goes_by_value(tmp_path):
    gymnasium.register("Here-v0", entry_point=_Local)
    try:
        assert _make(tmp_path, "Here-v0").environment.id.endswith(":Here-v0")
        assert _make(tmp_path, "Acrobot-v1").environment.id == "Acrobot-v1"
    finally:
        del gymnasium.registry["Here-v0"]


def test_what_belongs_to_this_process_is_refused(tmp_path):
    with pytest.raises(errors.BadInput, match="each process needs its own copies"):
        _make(tmp_path, gymnasium.make("Acrobot-v1"))
    lock = threading.Lock()
    with pytest.raises(errors.BadInput, match="cannot be sent to the processes"):
        _make(tmp_path, lambda: lock)
    lockstep_runs.train(tmp_path / "run", total_agent_steps=56)
    with pytest.raises(errors.BadInput, match="is the folder of a run"):
        _make(tmp_path, str(tmp_path / "run"))


def test_the_folder_of_a_run_is_named_after_its_environment(tmp_path):
    for environment, name in (
        ("ale_py:ALE/Pong-v5", "ALE-Pong-v5"),
        (["Acrobot-v1", "CartPole-v1"], "Acrobot-v1-CartPole-v1"),
    ):
        made = _make(tmp_path, environment, config_lib.get_base_config())
        assert settings.short_name(made).replace("+", "-") == name
