"""What a config refuses, what two configs differ in, and the way through JSON."""

import importlib.util
import json
import pathlib

import pytest

from impala_mp import config as config_lib, errors, replay_settings, validation

_EXPERIMENTS = sorted(
    (pathlib.Path(__file__).parent.parent / "experiments").glob("*.py")
)


def _changed(**fields):
    config = config_lib.get_base_config()
    config.update_from_flattened_dict(fields)
    return config


_RECURRENT_REPLAY = {"replay.ratio": 0.5, "network.core": "lstm"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batch_size": 40}, r"batch_size \(40\).*set config.batch_size to 48"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"unroll_length": 0}, "unroll_length"),
        ({"actors.slots": 1, "batch_size": 64}, "config.actors.slots to 2"),
        ({"actors.count": 201}, "at most 200"),
        ({"actors.epsilon": 1.5}, "between 0 and 1"),
        ({"actors.temperature": 0.0}, r"\(0.0\) must be between 0.001 and 1000"),
        ({"actors.epsilon_ladder": -1.0}, "at least 0"),
        ({"schedules.epsilon": "cosine(1, 0, 5)"}, r"must be one of constant\(value"),
        ({"learner.micro_batches": 5}, "must divide batch_size"),
        ({"algorithm": "ppo"}, "must be one of vtrace, impact"),
        ({"loss.baseline": "l1"}, "squared, huber"),
        (
            {"loss.popart": True, "loss.reward_clipping": "abs_one"},
            "loss.popart .* pointless: set config.loss.reward_clipping=none",
        ),
        (
            {"loss.popart": True, "algorithm": "impact", "target.polyak": 0.9},
            "no average of values: set config.target.polyak=0",
        ),
        ({"target.polyak": 1.0}, "never moves"),
        ({"target.period": 0}, "at least 1"),
        ({"learner.passes": 0}, "at least 1"),
        ({"impact.clip_range": 0.0}, "above 0"),
        ({"impact.clip_range": 1.5}, "between 0 and 1"),
        ({"impact.ratio_threshold": 0.5}, "at least 1"),
        ({"loss.popart_beta": 0.0}, "above 0"),
        ({"loss.huber_delta": 0.0}, "above 0"),
        ({"network.core": "gru"}, "none, lstm"),
        ({"loss.reduction": "median"}, "sum, mean"),
        ({"loss.reward_clipping": "two"}, "abs_one"),
        ({"optimizer.name": "sgd"}, "rmsprop_torch"),
        ({"optimizer.schedule": "cosine"}, "constant"),
        ({"runtime.mode": "threads"}, "lockstep"),
        (
            {"runtime.mode": "lockstep", "evaluation.interval_secs": 5.0},
            "evaluation.interval_secs=0",
        ),
        ({"vtrace.clip_c_threshold": 2.0}, "must not exceed"),
        ({"loss.discount_factor": -0.1}, "between 0 and 1"),
        ({"shutdown.deadline_secs": 0.0}, "above 0"),
        ({"seed": -1}, "at least 0"),
        ({"actors.policy_delay": 4, "max_policy_lag": 2}, "set one of them only"),
        ({"optimizer.learning_rate": float("nan")}, "at least 0"),
        ({"replay.ratio": 1.0}, r"replay.ratio \(1.0\) must be at least 0 and below 1"),
        ({"replay.ratio": -0.1}, "at least 0 and below 1"),
        ({"replay.ratio": float("nan")}, "at least 0 and below 1"),
        ({"replay.ratio": 0.4, "batch_size": 64}, "set config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.9}, "set config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.01}, "config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.5, "batch_size": 16}, "config.batch_size to at least 32"),
        ({"replay.memory_mib": 0}, "above 0"),
        ({"replay.eviction": "random"}, "fifo, priority"),
        ({"replay.priority_exponent": -1}, "at least 0"),
        ({"replay.priority_eta": 2}, "between 0 and 1"),
        ({"replay.burn_in": 20}, r"below unroll_length \(20\)"),
        (
            {**_RECURRENT_REPLAY},
            "older parameters.*config.replay.burn_in to at least 1",
        ),
    ],
)
def test_refusals_name_the_field_its_value_and_the_cure(fields, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        validation.validate(_changed(**fields), num_cores=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"replay.ratio": 0.5},
        {"replay.ratio": 0.5, "network.last_action": True},  # the state is exact
        {**_RECURRENT_REPLAY, "replay.burn_in": 1},
        {"replay.ratio": 1 / 3, "batch_size": 48},
        {"replay.ratio": 0.4, "actors.environments": 0},
        {"replay.ratio": 0.75, "batch_size": 64, "actors.slots": 1, "actors.count": 1},
    ],
)
def test_replay_with(fields):
    validation.validate(_changed(**fields), num_cores=2)


def test_a_replay_smaller_than_a_batch_is_refused():
    config = _changed(**{"replay.memory_mib": 1.0})
    assert replay_settings.capacity(config, 2**20 // 32) == 32
    sentence = r"memory_mib \(1.0\) holds 31 .* a batch \(32\): set .* at least 1.1"
    with pytest.raises(errors.BadInput, match=sentence):
        replay_settings.capacity(config, 2**20 // 32 + 1)


def test_the_base_config_is_valid():
    validation.validate(config_lib.get_base_config(), num_cores=1)


def _variants(get_config):
    try:
        get_config("?")
    except errors.BadInput as error:
        return str(error).split("choose among ")[1].split(".")[0].split(", ")
    except TypeError:
        return [None]
    return ["Pong", "Pong-deep", "Breakout-shallow-sticky"]  # any game


@pytest.mark.parametrize("path", _EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_are_valid(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for variant in _variants(module.get_config):
        config = module.get_config(variant) if variant else module.get_config()
        validation.validate(config, num_cores=2)
        again = config_lib.from_json(config_lib.to_json(config))
        assert config_lib.differences(config, again) == {}


def test_differences_are_named_by_field():
    changed = _changed(**{"loss.entropy_cost": 0.5, "network.hidden_sizes": (1,)})
    assert config_lib.differences(config_lib.get_base_config(), changed) == {
        "loss.entropy_cost": (0.01, 0.5),
        "network.hidden_sizes": ([64, 64], [1]),
    }


@pytest.mark.parametrize(
    ("field", "operational"),
    [
        ("total_agent_steps", True),
        ("checkpoint.keep_last", True),
        ("actors.count", True),
        ("actors.environments", False),
        ("checkpointing", False),
        ("replay.save", True),
        ("replay.memory_mib", False),
        ("loss.entropy_cost", False),
    ],
)
def test_operational_fields(field, operational):
    assert config_lib.is_operational(field) == operational


def test_the_nearest_key_is_hinted_at():
    assert config_lib.nearest("batchsize", ["batch_size", "seed"]).endswith(
        "'batch_size'?"
    )
    assert config_lib.nearest("xyzzy", ["batch_size", "seed"]) == ""


def test_threads_of_the_learner():
    assert config_lib.learner_threads(_changed(**{"actors.count": 2}), 8) == 6
    assert config_lib.learner_threads(_changed(**{"actors.count": 2}), 2) == 1
    assert config_lib.learner_threads(_changed(**{"learner.threads": 3}), 2) == 3
    assert config_lib.num_actors(_changed(**{"actors.count": 0}), 7) == 7


def test_a_config_of_an_earlier_version_gets_the_fields_that_came_later():
    stored = json.loads(config_lib.to_json(_changed(batch_size=48)))
    del stored["replay"], stored["loss"]["popart"]
    read = config_lib.from_json(json.dumps(stored))
    assert config_lib.differences(read, _changed(batch_size=48)) == {}
    assert isinstance(read.network.hidden_sizes, tuple)
    stored["health"]["max_restarts"] = 100  # as it once was
    with pytest.raises(errors.BadInput, match="another version"):
        config_lib.from_json(json.dumps(stored))
