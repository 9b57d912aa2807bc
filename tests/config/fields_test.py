"""Fields of a config: differences, hints, and the way through JSON."""

import json

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import fields
from tests.support import builders


def test_differences_are_named_by_field():
    changed = builders.impala_config(
        **{"loss.entropy_cost": 0.5, "network.hidden_sizes": (1,)}
    )
    assert fields.differences(config_lib.get_impala_config(), changed) == {
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
        ("learner.cuda_graph", True),
        ("replay.save", True),
        ("replay.memory_mib", False),
        ("loss.entropy_cost", False),
    ],
)
def test_operational_fields(field, operational):
    assert fields.is_operational(field) == operational


def test_the_nearest_key_is_hinted_at():
    assert fields.nearest("batchsize", ["batch_size", "seed"]).endswith("'batch_size'?")
    assert fields.nearest("xyzzy", ["batch_size", "seed"]) == ""


@pytest.mark.parametrize(("rows", "burns_in"), [(0, False), (5, True)])
def test_burn_in_was_a_number_of_rows(rows, burns_in):
    stored = json.loads(config_lib.to_json(builders.impala_config()))
    stored["replay"]["burn_in"] = rows
    read = config_lib.from_json(json.dumps(stored))
    assert read.replay.burn_in is burns_in


def test_a_config_of_an_earlier_version_gets_the_fields_that_came_later():
    stored = json.loads(config_lib.to_json(builders.impala_config(batch_size=48)))
    del stored["replay"], stored["impact"]["normalise_advantages"]
    read = config_lib.from_json(json.dumps(stored))
    before = {"batch_size": 48, "impact.normalise_advantages": False}
    assert fields.differences(read, builders.impala_config(**before)) == {}
    assert isinstance(read.network.hidden_sizes, tuple)
    stored["health"]["max_restarts"] = 100  # as it once was
    with pytest.raises(errors.BadInput, match="another impala_mp version"):
        config_lib.from_json(json.dumps(stored))
