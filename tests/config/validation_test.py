"""What a config refuses."""

import math
import re

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import base, derived, fields, validation
from tests.support import builders

_RECURRENT_REPLAY = {"replay.ratio": 0.5, "network.core": "lstm"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batch_size": 40}, r"batch_size \(40\).*Set config.batch_size to 48"),
        ({"batch_size": -1}, r"batch_size \(-1\) must be at least 0"),
        ({"optimizer.learning_rate": 0.0}, "above 0"),
        ({"unroll_length": 0}, "unroll_length"),
        ({"actors.slots": 1, "batch_size": 64}, "config.actors.slots to 2"),
        ({"actors.count": 201}, "at most 200"),
        ({"optimizer.decay": 1.0}, r"decay \(1.0\) must be below 1 with .*=adam"),
        ({"optimizer.momentum": 1.0}, "must be below 1 with optimizer.name=adam"),
        ({"actors.epsilon": 1.5}, "between 0 and 1"),
        ({"actors.temperature": 0.0}, r"\(0.0\) must be between 0.001 and 1000"),
        ({"actors.epsilon_ladder": -1.0}, "at least 0"),
        ({"schedules.epsilon": "cosine(1, 0, 5)"}, r"must be one of constant\(value"),
        ({"learner.micro_batches": 5}, "must divide batch_size"),
        (
            {"learner.micro_batches": 0, "learner.device": "cuda"},
            "auto is measured on a CPU only.*'cuda'.*micro_batches to a number",
        ),
        ({"algorithm": "ppo"}, "must be one of vtrace, impact"),
        ({"loss.baseline": "l1"}, "squared, huber"),
        (
            {"loss.popart": True, "loss.reward_clipping": "abs_one"},
            r"loss.popart .* pointless\. Set config.loss.reward_clipping=none",
        ),
        (
            {"loss.popart": True, "algorithm": "impact", "target.polyak": 0.9},
            r"no average of values\. Set config.target.polyak=0",
        ),
        ({"target.polyak": 1.0}, "never moves"),
        ({"target.period": 0, "algorithm": "impact"}, "at least 1"),
        ({"learner.passes": 0}, "at least 1"),
        ({"impact.clip_range": 0.0}, "above 0"),
        ({"impact.clip_range": 1.5}, "between 0 and 1"),
        ({"impact.ratio_threshold": 0.5}, "at least 1"),
        ({"loss.popart_beta": 0.0}, "above 0"),
        ({"loss.huber_delta": 0.0}, "above 0"),
        ({"network.initial_std": 0.0}, "above 0"),
        ({"network.core": "transformer"}, "none, lstm, gru, gtrxl, or module:factory"),
        (
            {"network.core": "gtrxl", "network.core_size": 30},
            r"core_size \(30\) must be a multiple .*heads \(4\). Set .* to 32",
        ),
        ({"network.gtrxl.heads": 0}, r"network.gtrxl.heads \(0\) must be at least 1"),
        ({"network.gtrxl.layers": 0}, "at least 1"),
        ({"network.gtrxl.window": 0}, "at least 1"),
        ({"loss.reduction": "median"}, "sum, mean"),
        ({"loss.reward_clipping": "two"}, "abs_one"),
        ({"optimizer.name": "sgd"}, "rmsprop_torch"),
        ({"optimizer.schedule": "cosine"}, "constant"),
        ({"runtime.mode": "threads"}, "lockstep"),
        (
            {"runtime.mode": "lockstep", "evaluation.interval_steps": 5},
            "evaluation.interval_steps=0",
        ),
        ({"vtrace.clip_c_threshold": 2.0}, "must not exceed"),
        ({"loss.discount_factor": -0.1}, "between 0 and 1"),
        ({"shutdown.deadline_secs": 0.0}, "above 0"),
        ({"shutdown.deadline_secs": math.inf}, r"\(inf\) must be at most 1,000,000"),
        ({"logging.interval_secs": math.inf}, "at most 1,000,000"),
        ({"logging.interval_secs": 1e7}, "at most 1,000,000"),  # poll's is an int
        ({"health.backoff_secs": math.inf}, "at most 1,000,000"),
        ({"health.max_backoff_secs": math.inf}, "at most 1,000,000"),
        ({"replay.memory_mib": math.inf}, "finite"),
        ({"network.hidden_sizes": ("abc",)}, r"\('abc',\)\) must be whole numbers"),
        ({"network.hidden_sizes": (-3, "a")}, r"1,000,000\. Set config.network.hidden"),
        ({"network.hidden_sizes": (0,)}, "whole numbers"),
        ({"network.hidden_sizes": (10**20,)}, "whole numbers"),
        ({"network.core_size": 10**20}, "at most 1,000,000"),
        ({"network.hidden_sizes": (64.0,)}, "whole numbers"),
        ({"evaluation.max_steps": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"actors.policy_delay": 4, "max_policy_lag": 2}, "Set one of them only"),
        ({"optimizer.learning_rate": float("nan")}, "above 0"),
        ({"replay.ratio": 1.0}, r"replay.ratio \(1.0\) must be at least 0 and below 1"),
        ({"replay.ratio": -0.1}, "at least 0 and below 1"),
        ({"replay.ratio": float("nan")}, "at least 0 and below 1"),
        ({"replay.ratio": 0.4, "batch_size": 64}, "Set config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.9}, "Set config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.01}, "config.replay.ratio to 0.5"),
        ({"replay.ratio": 0.5, "batch_size": 16}, "config.batch_size to at least 32"),
        ({"replay.memory_mib": 0}, "above 0"),
        ({"replay.eviction": "random"}, "fifo, priority"),
        ({"replay.priority_exponent": -1}, "at least 0"),
        ({"replay.priority_eta": 2}, "between 0 and 1"),
        ({"replay.memory_mib": float("inf")}, r"memory_mib \(inf\) must be finite"),
        ({"replay.clear_policy_cost": float("inf")}, "must be finite"),
        ({"replay.clear_value_cost": float("inf")}, "must be finite"),
        ({"impact.kl_cost": float("inf")}, r"impact.kl_cost \(inf\) must be finite"),
        *(
            (
                {**_RECURRENT_REPLAY, "network.core": core},
                f"network.core={core} .* older parameters.*burn_in=True",
            )
            for core in ("lstm", "gru", "gtrxl", "my_core:factory")
        ),
    ],
)
def test_refusals_name_the_field_its_value_and_the_cure(fields, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        validation.validate(builders.impala_config(**fields), num_cores=2)


_REPLAY = {"replay.ratio": 0.5}
_SERVER = {"inference.mode": "server"}
_PRIORITISED = {**_REPLAY, "replay.priority_exponent": 0.6}


@pytest.mark.parametrize(
    ("field", "value", "needed", "words"),
    [
        ("replay.memory_mib", 64.0, _REPLAY, "replay.ratio or replay.reuse above 0"),
        (
            "replay.eviction",
            "priority",
            _REPLAY,
            "replay.ratio or replay.reuse above 0",
        ),
        (
            "replay.priority_exponent",
            0.6,
            _REPLAY,
            "replay.ratio or replay.reuse above 0",
        ),
        (
            "replay.clear_policy_cost",
            0.01,
            _REPLAY,
            "replay.ratio or replay.reuse above 0",
        ),
        (
            "replay.clear_value_cost",
            0.01,
            _REPLAY,
            "replay.ratio or replay.reuse above 0",
        ),
        ("replay.trust_region", 0.1, _REPLAY, "replay.ratio or replay.reuse above 0"),
        ("replay.save", True, _REPLAY, "replay.ratio or replay.reuse above 0"),
        (
            "replay.burn_in",
            True,
            _RECURRENT_REPLAY,
            "replay.ratio or replay.reuse above 0",
        ),
        (
            "replay.importance_exponent",
            0.5,
            _PRIORITISED,
            "replay.ratio or replay.reuse above 0",
        ),
        (
            "replay.priority_eta",
            0.5,
            _PRIORITISED,
            "replay.ratio or replay.reuse above 0",
        ),
        ("impact.kl_cost", 0.1, {"algorithm": "impact"}, "algorithm=impact"),
        ("target.period", 2, {"algorithm": "impact"}, "algorithm=impact, dqn or iqn"),
        ("loss.huber_delta", 2.0, {"loss.baseline": "huber"}, "loss.baseline=huber"),
        ("loss.popart_beta", 0.1, {"loss.popart": True}, "loss.popart=True"),
        ("network.core_size", 64, {"network.core": "lstm"}, "a network.core"),
        ("network.gtrxl.layers", 3, {"network.core": "gtrxl"}, "network.core=gtrxl"),
        ("inference.device", "cuda", _SERVER, "inference.mode=server"),
        ("inference.threads", 2, _SERVER, "inference.mode=server"),
    ],
)
def test_fields_without_effect_are_refused(field, value, needed, words):
    validation.validate(builders.impala_config(**needed, **{field: value}), num_cores=2)
    default = re.escape(repr(fields.get(builders.impala_config(), field)))
    sentence = rf"{field} .*{value}.* without {words}\. .*config.{field} at {default}"
    with pytest.raises(errors.BadInput, match=sentence):
        validation.validate(builders.impala_config(**{field: value}), num_cores=2)


_FIXED = {"iqn.fractions": "fixed"}


@pytest.mark.parametrize(
    ("field", "value", "others", "words"),
    [
        ("iqn.embedding", 32, _FIXED, "has no effect without iqn.fractions=drawn"),
        ("iqn.acting_quantiles", 64, _FIXED, "without iqn.fractions=drawn"),
        ("loss.baseline", "huber", {}, "without algorithm=impact, vtrace or dqn"),
        ("loss.huber_delta", 2.0, {}, "without algorithm=impact, vtrace or dqn"),
        ("loss.baseline_cost", 1.0, {}, "without algorithm=impact or vtrace"),
        ("network.dueling", True, {"loss.popart": False}, "without algorithm=dqn"),
        ("dqn.returns", "retrace", {}, "algorithm=iqn has quantiles. Set config.dqn.r"),
        ("iqn.quantiles", 4, {"algorithm": "dqn"}, "without algorithm=iqn"),
        ("iqn.kappa", 0.0, {}, "above 0"),
        ("iqn.fractions", "learned", {}, "must be one of drawn, fixed"),
        ("dqn.rescaling", "hyperbolic", {}, "both set the scale of the"),
    ],
)
def test_fields_that_iqn_does_not_read_are_refused(field, value, others, words):
    config = config_lib.get_iqn_config()
    config.update_from_flattened_dict(others)
    validation.validate(config, num_cores=2)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(errors.BadInput, match=rf"{field} \({value!r}\).*{words}"):
        validation.validate(config, num_cores=2)


@pytest.mark.parametrize(
    "overrides",
    [
        {"dqn.n_step": 1, "dqn.double": False, "iqn.kappa": 0.5, "iqn.quantiles": 64},
        {"dqn.rescaling": "hyperbolic", "loss.popart": False},
        {**_FIXED, "iqn.quantiles": 200},
        {"target.period": 0},
    ],
    ids=str,
)
def test_fields_that_iqn_reads(overrides):
    config = config_lib.get_iqn_config()
    config.update_from_flattened_dict(overrides)
    validation.validate(config, num_cores=2)


def test_replay_fields_without_effect_are_refused():
    for field, value, words in (
        ("replay.burn_in", True, "a network.core"),
        ("replay.importance_exponent", 0.5, "replay.priority_exponent above 0"),
        ("replay.priority_eta", 0.5, "or replay.eviction=priority"),
    ):
        with pytest.raises(errors.BadInput, match=f"{field} .*without .*{words}"):
            validation.validate(
                builders.impala_config(**_REPLAY, **{field: value}), num_cores=2
            )


@pytest.mark.parametrize(
    "field",
    [
        "checkpoint.interval_secs",
        *(f"health.{kind}_secs" for kind in ("start", "reset", "slow", "hang")),
        "health.window_secs",
    ],
)
def test_infinity_means_never(field):
    validation.validate(builders.impala_config(**{field: math.inf}), num_cores=2)


def test_a_network_may_have_no_hidden_layer():
    validation.validate(
        builders.impala_config(**{"network.hidden_sizes": ()}), num_cores=2
    )


def test_the_base_config_is_valid():
    validation.validate(config_lib.get_base_config(), num_cores=1)


def test_every_field_has_a_meaning_and_a_default_by_its_own_rules():
    assert len(base.BY_NAME) == len(base.FIELDS)
    for field in base.FIELDS:
        assert field.meaning, field.name
        field.check(field.default)
        value = fields.get(config_lib.get_base_config(), field.name)
        assert value == field.default or value.to_dict() == field.default


def test_every_live_value_has_a_field_and_a_schedule():
    flat = fields.flatten(config_lib.get_base_config())
    for name, field in base.LIVE.items():
        assert (field.name in flat) == (name != "learning_rate_factor")
        assert f"schedules.{name}" in flat
        assert field.rules


def test_a_machine_of_many_cores_has_an_actor_each_up_to_the_limit():
    config = builders.impala_config(**{"actors.count": 0})
    validation.validate(config, num_cores=256)
    assert derived.num_actors(config.actors, 256) == derived.MAX_ACTORS
