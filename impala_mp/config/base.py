"""All fields of the config, and the base config made of them."""

import dataclasses

from ml_collections import config_dict

from impala_mp.config import learning_fields, operation_fields, schedules, schema

# Bounds of PopArt's sigma. The lower one is the paper's. Below the upper one, the
# square of a sum of targets is finite in float32.
POPART_SCALES = (1e-4, 1e15)

_field, _group = schema.field, schema.group
_TABLE = (*learning_fields.TABLE, *operation_fields.TABLE)


def _of(live: schema.Field) -> str:
    """Returns what a live value is: its field, or its meaning if it is none."""
    return f"the {live.meaning}" if live.scheduled_only else live.name


# Live hyperparameters by the name under which they are scheduled and overridden.
LIVE = {
    field.short_name: field for group in _TABLE for field in group.fields if field.live
}

GROUPS = (
    *(
        dataclasses.replace(
            group,
            fields=tuple(each for each in group.fields if not each.scheduled_only),
        )
        for group in _TABLE
    ),
    _group(
        "schedules",
        "Schedules of live values over agent steps:"
        f" {'; '.join(schedules.KINDS.values())}. Empty: the field of that name holds"
        " (learning_rate_factor: 1).",
        *(_field(name, "", f"schedule of {_of(live)}") for name, live in LIVE.items()),
        changeable=True,
    ),
    _group(
        "population",
        "Population-based training: members are policies of one config, and the worst"
        " copy the best.",
        _field("size", 0, "members; 0: no population", at_least=0),
        _field(
            "interval",
            100_000,
            "agent steps of a member between two rounds",
            at_least=1,
        ),
        _field(
            "quantile",
            0.25,
            "share of the members that copies, and share that is copied; at least one"
            " member",
            above=0,
            between=(0, 0.5),
        ),
        _field(
            "factors",
            (0.8, 1.25),
            "factors on the live values of a copy, one of which is drawn",
            schema.positive_numbers(),
        ),
        *(
            _field(
                f"ranges.{name}",
                (),
                f"lowest and highest value of {_of(live)}; members begin spread over"
                " it; empty: it is the same for all",
                schema.range_or_empty(),
            )
            for name, live in LIVE.items()
        ),
    ),
)
FIELDS = tuple(field for group in GROUPS for field in group.fields)
BY_NAME = {field.name: field for field in FIELDS}

# Fields and groups that may change between two runs in the same folder: none of them
# alters what one update computes (a longer run stretches the learning-rate schedule).
OPERATIONAL = (
    *(group.name for group in GROUPS if group.operational),
    *(field.name for field in FIELDS if field.operational),
)

# Fields for which 0, or "auto" on the command line, means: chosen by calibration.
AUTOMATIC = tuple(field.name for field in FIELDS if field.automatic)


def get_base_config() -> config_dict.ConfigDict:
    """Returns the config of `impala-train ID`, with the default of every field.

    It learns small environments of any supported space: IMPACT with PPO's surrogate,
    normalised observations, values and advantages (docs/guides/algorithms.md).
    """
    config = config_dict.ConfigDict()
    open_groups = []
    for field in FIELDS:
        *parents, name = field.name.split(".")
        group = config
        for parent in parents:
            if parent not in group:
                group[parent] = config_dict.ConfigDict()
            group = group[parent]
        group[name] = field.default
        if isinstance(field.default, dict):
            open_groups.append(group[name])
    config.lock()
    for group in open_groups:
        group.unlock()  # takes any name
    return config


def get_impala_config() -> config_dict.ConfigDict:
    """Returns a config with IMPALA's settings: V-trace, and one pass over each batch.

    It learns most per second where steps are cheap. Learning rate, costs and unroll
    length need a choice for each environment (Espeholt et al. 2018, table D.1).
    """
    config = get_base_config()
    config.total_agent_steps = 1_000_000
    config.algorithm = "vtrace"
    config.unroll_length = 20
    config.batch_size = 32
    config.network.normalise_observations = False
    config.actors.environments = 16
    config.actors.count = 2
    config.actors.slots = 3
    config.loss.reduction = "sum"
    config.loss.popart = False
    config.optimizer.clip_norm = 40.0
    config.vtrace.lambda_ = 1.0
    config.learner.passes = 1
    config.evaluation.greedy = False
    return config


def get_dqn_config() -> config_dict.ConfigDict:
    """Returns a config with DQN's settings: action values, replay, a target network.

    Double, prioritised, with returns of three steps, as in Ape-X (Horgan et al. 2018,
    arXiv 1803.00933).
    """
    config = get_base_config()
    config.algorithm = "dqn"
    config.unroll_length = 16
    config.batch_size = 32
    config.optimizer.learning_rate = 5e-4
    config.optimizer.clip_norm = 10.0
    config.target.period = 100
    config.learner.passes = 1
    config.replay.reuse = 8.0
    config.replay.start = 64
    config.replay.priority_exponent = 0.6
    return config


def get_apex_config() -> config_dict.ConfigDict:
    """Returns a config with Ape-X's settings: DQN that never waits for its actors.

    Dueling values; each environment has its own epsilon, from 0.4 to 0.4 ** 8 (Horgan
    et al. 2018, arXiv 1803.00933).
    """
    config = get_dqn_config()
    config.network.dueling = True
    config.loss.popart = False
    config.actors.epsilon = 0.4
    config.actors.epsilon_ladder = 7.0
    config.actors.ladder_over = "environments"
    config.replay.reuse = float("inf")
    return config


def get_r2d2_config() -> config_dict.ConfigDict:
    """Returns a config with R2D2's settings: a recurrent Ape-X with burn-in.

    The core state before a replayed trajectory is computed from the one before it.
    Values are rescaled, and returns have five steps (Kapturowski et al. 2019).
    """
    config = get_apex_config()
    config.network.core = "lstm"
    config.network.last_reward = True
    config.network.last_action = True
    config.loss.discount_factor = 0.997
    config.dqn.n_step = 5
    config.dqn.rescaling = "hyperbolic"
    config.replay.reuse = 8.0
    config.replay.burn_in = True
    config.replay.priority_exponent = 0.9
    config.replay.importance_exponent = 0.6
    return config


def get_iqn_config() -> config_dict.ConfigDict:
    """Returns a config with IQN's settings: quantiles, on top of DQN's config.

    Numbers of quantiles and Adam's epsilon are those of the paper (Dabney et al. 2018,
    arXiv 1806.06923). Priorities, returns of three steps and double are added, as in
    Rainbow-IQN (Toromanoff et al. 2019, arXiv 1908.04683).
    """
    config = get_dqn_config()
    config.algorithm = "iqn"
    config.optimizer.epsilon = 0.01 / 32
    return config


def get_pqn_config() -> config_dict.ConfigDict:
    """Returns a config with PQN's settings: action values, without replay and target.

    Layer norm keeps them from diverging (Gallici et al. 2024, arXiv 2407.04811). Values
    at unit scale, which the paper does not have, keep CartPole's from collapsing. The
    paper's returns are `peng`. Those here are corrected for exploration: MinAtar
    Asterix has 52 with them, and 34 with the paper's.
    """
    config = get_base_config()
    config.algorithm = "dqn"
    config.dqn.returns = "lambda"
    config.unroll_length = 32
    config.batch_size = 32
    config.network.layer_norm = True
    config.optimizer.learning_rate = 5e-4
    config.optimizer.clip_norm = 10.0
    config.target.period = 0
    config.learner.passes = 2
    return config
