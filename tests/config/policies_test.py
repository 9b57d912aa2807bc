"""Configs of single policies."""

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import effects, fields, policies

PLAYERS = {"hunters": 3, "prey": 1}


def _config(**own):
    config = config_lib.get_base_config()
    config.total_agent_steps = 1001
    config.actors.environments = 8
    config.batch_size = 16
    for name, values in own.items():
        config.policies[name] = values
    return config


def test_a_policy_has_its_share_of_what_counts_players():
    hunters, prey = policies.of_run(_config(), PLAYERS)
    sizes = [
        (each.total_agent_steps, each.actors.environments, each.batch_size)
        for each in (hunters, prey)
    ]
    assert sizes == [(751, 6, 12), (251, 2, 4)]


def test_a_policy_has_fields_of_its_own():
    network = {"hidden_sizes": (32,)}
    config = _config(prey={"algorithm": "dqn", "batch_size": 6, "network": network})
    hunters, prey = policies.of_run(config, PLAYERS)
    assert (hunters.algorithm, prey.algorithm) == ("impact", "dqn")
    assert (prey.batch_size, prey.network.hidden_sizes) == (6, (32,))
    assert not prey.policies
    stored = fields.from_json(fields.to_json(config))
    assert not fields.differences(config, stored)
    assert policies.of_run(stored, PLAYERS)[1].network.hidden_sizes == (32,)


def test_a_single_policy_has_the_config_of_the_run():
    config = _config()
    assert policies.of_run(config, {"": 4})[0] is config


def test_a_policy_has_its_own_entries_of_fields_that_take_any_name():
    config = _config(prey={"network": {"encoders": {"arm": "mlp"}}})
    config.network.encoders = {"leg": "mlp"}
    of_hunters, of_prey = policies.of_run(config, PLAYERS)
    assert of_hunters.network.encoders.to_dict() == {"leg": "mlp"}
    assert of_prey.network.encoders.to_dict() == {"arm": "mlp", "leg": "mlp"}


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ({"pray": {"algorithm": "dqn"}}, "names no policy of hunters, prey.*'prey'"),
        ({"prey": {"batchsize": 3}}, "no field 'batchsize'.*'batch_size'"),
        ({"prey": {"seed": 3}}, "policies.prey.seed is the same for all policies"),
        ({"prey": {"unroll_length": 3}}, "is the same for all policies"),
        ({"prey": {"batch_size": "x"}}, r"\('x'\) must be of type int"),
    ],
)
def test_fields_that_a_policy_cannot_have(own, text):
    with pytest.raises(errors.BadInput, match=text):
        policies.of_run(_config(**own), PLAYERS)


def test_fields_of_policies_without_policies():
    config = _config(prey={"algorithm": "dqn"})
    with pytest.raises(errors.BadInput, match="has no effect with a single policy"):
        policies.of_run(config, {"": 4})


def test_an_entry_of_another_type_gets_a_sentence():
    config = _config(prey={"network": {"encoders": {"arm": 5}}})
    config.network.encoders = {"arm": "mlp"}
    with pytest.raises(
        errors.BadInput, match=r"encoders.arm \(5\) must be of type str"
    ):
        policies.of_run(config, PLAYERS)


def test_the_core_of_a_policy_reads_fields_of_the_run():
    config = _config(prey={"network": {"core": "lstm"}})
    config.network.core_size = 32
    effects.check(config)
    of_hunters, of_prey = policies.of_run(config, PLAYERS)
    assert (of_hunters.network.core_size, of_prey.network.core_size) == (128, 32)
