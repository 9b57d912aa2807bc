"""Fields that have an effect only beside others."""

from collections.abc import Callable, Collection
from typing import Any

from impala_mp import errors
from impala_mp.config import base, derived, fields, live_hyperparameters


def _cores(config: Any) -> set[str]:
    """Returns the cores of a run, or of one of its policies."""
    own = fields.flatten(config.policies).items()
    found = {core for field, core in own if field.endswith(".network.core")}
    return {config.network.core, *found}


# Beginnings of fields, what they need to have an effect, and whether that holds.
_NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (
        ("replay.",),
        "replay.ratio or replay.reuse above 0",
        derived.has_replay,
    ),
    (("replay.start",), "replay.reuse above 0", lambda c: c.replay.reuse > 0),
    (("replay.burn_in",), "a network.core", lambda c: c.network.core != "none"),
    (("network.core_size",), "a network.core", lambda c: _cores(c) != {"none"}),
    (("network.gtrxl.",), "network.core=gtrxl", lambda c: "gtrxl" in _cores(c)),
    (
        ("inference.device", "inference.threads"),
        "inference.mode=server",
        lambda c: c.inference.mode == "server",
    ),
    (
        ("replay.importance_exponent",),
        "replay.priority_exponent above 0",
        lambda c: c.replay.priority_exponent > 0,
    ),
    (
        ("replay.priority_eta",),
        "replay.priority_exponent above 0 or replay.eviction=priority",
        lambda c: c.replay.priority_exponent > 0 or c.replay.eviction == "priority",
    ),
    (
        ("replay.clear_", "replay.trust_region", "loss.entropy_cost", "vtrace.")
        + ("network.critic",)
        + ("loss.baseline_cost", "network.initial_std", "actors.temperature")
        + ("evaluation.greedy",)
        + tuple(f"schedules.{name}" for name in live_hyperparameters.OF_A_POLICY),
        "algorithm=impact or vtrace",
        lambda c: not derived.learns_action_values(c),
    ),
    (("impact.",), "algorithm=impact", lambda c: c.algorithm == "impact"),
    (
        ("impact.centre_advantages",),
        "impact.normalise_advantages=True",
        lambda c: c.impact.normalise_advantages,
    ),
    (
        ("target.",),
        "algorithm=impact, dqn or iqn",
        lambda c: c.algorithm != "vtrace",
    ),
    (("dqn.",), "algorithm=dqn or iqn", derived.learns_action_values),
    (("network.dueling",), "algorithm=dqn", lambda c: c.algorithm == "dqn"),
    (("iqn.",), "algorithm=iqn", lambda c: c.algorithm == "iqn"),
    (
        ("iqn.acting_quantiles", "iqn.embedding"),
        "iqn.fractions=drawn",
        lambda c: c.iqn.fractions == "drawn",
    ),
    (
        ("loss.baseline", "loss.huber_delta"),
        "algorithm=impact, vtrace or dqn",
        lambda c: c.algorithm != "iqn",
    ),
    (("dqn.n_step",), "dqn.returns=n_step", lambda c: c.dqn.returns == "n_step"),
    (
        ("dqn.lambda_",),
        "dqn.returns=lambda, peng or retrace",
        lambda c: c.dqn.returns != "n_step",
    ),
    (
        ("dqn.double", "target.polyak"),
        "target.period above 0",
        lambda c: c.target.period > 0,
    ),
    (
        ("actors.ladder_over",),
        "actors.epsilon_ladder above 0",
        lambda c: c.actors.epsilon_ladder > 0,
    ),
    (
        ("loss.huber_delta",),
        "loss.baseline=huber",
        lambda c: c.loss.baseline == "huber",
    ),
    (("loss.popart_beta",), "loss.popart=True", lambda c: c.loss.popart),
    (
        ("population.interval", "population.quantile", "population.factors")
        + ("population.ranges.",),
        "population.size above 1",
        lambda c: c.population.size > 0,
    ),
    (("league.",), "league.every above 0", derived.has_league),
    (
        ("cluster.", "health.min_hosts"),
        "cluster.hosts above 0",
        lambda c: c.cluster.hosts > 0,
    ),
)


def reset(config: Any, kept: Collection[str] = ()) -> None:
    """Sets fields without an effect, but for `kept`, to their defaults.

    Older versions had others.
    """
    for beginnings, _, holds in _NEEDS:
        for field in base.FIELDS:
            if (
                field.name.startswith(beginnings)
                and field.name not in kept
                and not holds(config)
            ):
                config.update_from_flattened_dict({field.name: field.default})


def check(config: Any) -> None:
    """Refuses changed values that would have no effect.

    Raises:
      BadInput: with the field, its value and the cure.
    """
    changed = fields.differences(base.get_base_config(), config)
    for beginnings, needed, holds in _NEEDS:
        for field in changed:
            default, value = changed[field]
            if field.startswith(beginnings) and not holds(config):
                raise errors.BadInput(
                    f"{field} ({value!r}) has no effect without {needed}. Set that, or"
                    f" leave config.{field} at {default!r}."
                )
