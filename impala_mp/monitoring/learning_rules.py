"""Rules on learning: a fault in returns, policy, values or gradients, in words."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from impala_mp.config import derived
from impala_mp.monitoring import evidence
from impala_mp.monitoring.evidence import ERROR, HINT, WARNING, Evidence, Finding
from impala_mp.storage import files

_number = evidence.number

# A fall is a collapse if it loses half of all that was gained. The mean of 100 games
# moves by 1/50 of their range through chance alone, so a quarter is no chance. A
# resumed run may have gained nothing: its fall is compared with the return itself.
_LOST, _LOST_OF_SPREAD, _LOST_OF_BEST = 0.5, 0.25, 0.05
_MOVED = 2.0  # factor by which a companion of a collapse changes
_WINDOW = 8  # records on each side of a collapse whose medians are compared
_DETERMINISTIC = 0.05  # of the highest entropy: one action has over 98 % of two
_RANDOM = 0.95  # of the first entropy, or of a uniform policy's
_FLAT = 0.1  # of the range of games: a rise below it is noise
_JUDGED = 0.5  # share of the run before slow learning counts as none
_PLATEAU = 0.02  # of all that was gained, in the last third
_EXPLAINED = 0.02  # values that explain less are no better than their mean
_EXPLODED = 30.0  # times the first gradients; in healthy runs they grow by up to 10
_CLIPPED = 20.0  # times clip_norm: nearly nothing of each gradient is left
_KL = 0.3  # nats: the ratio pi/mu of a typical action is off by a factor of two
_LAG = 32.0  # updates; beyond, V-trace clips most of the data
_SAMPLES = 0.3  # effective share of a batch; healthy runs are above 0.9
_ALWAYS, _NEVER = 0.995, 1e-4  # shares of an action
# Fields where 0 or -1 means no limit, and counts of at least 1.
_LIMITS = ("optimizer.clip_norm", "max_policy_lag")
_COUNTS = ("learner.passes", "actors.slots", "actors.count")


class _Companion(NamedTuple):
    """A metric that often moves when the return falls."""

    key: str
    name: str
    fields: tuple[str, ...]  # to lower
    rises: bool = True


_COMPANIONS = (
    _Companion(
        "loss/gradient_norm",
        "gradient norm",
        ("optimizer.clip_norm", "optimizer.learning_rate"),
    ),
    _Companion("vtrace/kl", "KL", ("optimizer.learning_rate", "learner.passes")),
    _Companion("lag/mean", "policy lag", ("max_policy_lag", "actors.slots")),
    _Companion("policy/entropy", "entropy", ("optimizer.learning_rate",), rises=False),
)


def collapsed(e: Evidence) -> Iterator[Finding]:
    """Finds a return that fell and stayed down, and what moved at that time."""
    values = [value for _, value in e.returns]
    if not e.now < max(values, default=-1e300):
        return
    peak = len(values) - 1 - values[::-1].index(max(values))  # the last one
    best, fall = values[peak], values[peak] - e.now
    at_peak = e.records[e.returns[peak][0]]
    highest, lowest = (
        at_peak.get(f"episode/return_{each}", best) for each in ("max", "min")
    )
    spread = max(highest - lowest, e.spread)
    gained = best - min(values[: peak + 1])
    if fall < max(_LOST * gained, _LOST_OF_SPREAD * spread, _LOST_OF_BEST * abs(best)):
        return
    halfway = best - 0.5 * fall
    later = [index for index, value in e.returns[peak:] if value < halfway]
    if not later:  # the newest values before the peak were the low ones
        return
    down = later[0]
    sentence = (
        f"The return fell from {_number(best)} to {_number(e.now)} at"
        f" {e.records[down]['agent_steps']:,.0f} steps."
    )
    moved, cure = _companion(e, e.returns[peak][0], down)
    yield Finding("return collapsed", ERROR, f"{sentence}{moved}", cure)


def _companion(e: Evidence, peak: int, down: int) -> tuple[str, str]:
    """Returns a sentence on the metric that moved most, and the cure for it."""
    found = []
    for each in _COMPANIONS:
        before = _around(e, each.key, peak - 2 * _WINDOW, peak + 1)
        after = _around(e, each.key, down - _WINDOW // 2, down + _WINDOW)
        if before > 0.0 and after > 0.0:
            factor = after / before if each.rises else before / after
            found.append((factor, each, before, after))
    factor, each, before, after = max(
        found, default=(0.0, _COMPANIONS[0], 0.0, 0.0), key=lambda entry: entry[0]
    )
    if factor < _MOVED:
        rate = e.field("optimizer.learning_rate")
        return "", f"Lower {rate}, or keep the best checkpoint."
    verb = "rose" if each.rises else "fell"
    moved = f" The {each.name} {verb} from {_number(before)} to {_number(after)} then."
    return moved, _lower(e, each.fields)


def _around(e: Evidence, key: str, start: int, stop: int) -> float:
    return evidence.median(
        [
            record[key]
            for record in e.records[max(0, start) : stop]
            if files.is_number(record.get(key))
        ]
    )


def _lower(e: Evidence, names: tuple[str, ...]) -> str:
    """Returns a cure that lowers fields, except counts that are 1 already."""
    off = [n for n in names if n in _LIMITS and e.setting(n) <= 0.0]
    low = [n for n in names if n in _COUNTS and e.setting(n) <= 1.0]
    parts = [f"set a limit by {e.field(n)}" for n in off]
    parts += [f"lower {e.field(n)}" for n in names if n not in off + low]
    text = ", or ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def deterministic(e: Evidence) -> Iterator[Finding]:
    """Finds a policy that explores no more while the return is poor.

    Only Discrete actions have a lowest entropy, 0. The entropy of a narrow density is
    negative, and 0 means nothing.
    """
    now = e.recent("policy/entropy")
    first = max(e.series("policy/entropy"), default=math.nan)
    poor = e.now - e.start < _FLAT * max(e.spread, e.top - e.start) or max(
        (v for _, v in e.returns), default=math.nan
    ) - e.now > _LOST * (e.top - e.start)
    discrete = any("policy/actions" in record for record in e.records)
    if e.falls_short and discrete and now < _DETERMINISTIC * first:
        yield Finding(
            "deterministic policy",
            WARNING if poor else HINT,
            f"The entropy fell from {_number(first)} to {_number(now)} nats while the"
            f" return is {_number(e.now)} and the best game {_number(e.top)}.",
            f"Raise {e.field('loss.entropy_cost')}, or lower"
            f" {e.field('optimizer.learning_rate')}.",
        )


def not_learning(e: Evidence) -> Iterator[Finding]:
    """Finds a return that never rose, or that stopped rising far from the top."""
    if not e.is_from_start or not e.progress >= _JUDGED:
        return
    lowest = min(e.series("episode/return_min"), default=0.0)
    if e.top == lowest and len(e.returns) > _WINDOW:
        yield Finding(
            "no reward",
            ERROR,
            f"All {_number(e.last('episode/count'))} games had the return"
            f" {_number(e.top)}. There is nothing to learn from.",
            "Check the reward of the environment with impala-train --check, or reward"
            f" first steps, or raise {_exploration(e)}.",
        )
    elif e.now - e.start < _FLAT * e.spread and _is_random(e) and not e.is_solved:
        yield Finding(
            "no learning",
            WARNING,
            f"The return is {_number(e.now)} after {100 * e.progress:.0f} % of the run,"
            f" and was {_number(e.start)} at first. The policy is still random"
            f" (entropy {_number(e.recent('policy/entropy'))} nats).",
            f"Raise {e.field('optimizer.learning_rate')}, lower"
            f" {e.field('loss.entropy_cost')}, or check what the network sees.",
        )
    else:
        yield from _plateau(e)


def _is_random(e: Evidence) -> bool:
    """Returns True if the entropy never left its first value."""
    return e.recent("policy/entropy") >= _RANDOM * e.first("policy/entropy") > 0.0


def _plateau(e: Evidence) -> Iterator[Finding]:
    """Finds a last third without a rise, unless the return is near the top."""
    values = [value for _, value in e.returns]
    third = len(values) // 3
    if third < _WINDOW or not e.progress >= 0.6 or e.is_solved or any(collapsed(e)):
        return
    before = evidence.median(values[-third - third // 2 : -third])
    gained = max(values) - e.start
    if gained < _LOST_OF_SPREAD * e.spread or e.now - before > _PLATEAU * gained:
        return  # it never rose, or it still rises
    at = e.records[e.returns[-third][0]]["agent_steps"]
    yield Finding(
        "plateau",
        HINT,
        f"The return has not risen since {at:,.0f} steps: {_number(before)} then,"
        f" {_number(e.now)} now. The best game had {_number(e.top)}.",
        f"Raise {_exploration(e)} or the network's size, or stop the run"
        " if this return is good.",
    )


def poor_values(e: Evidence) -> Iterator[Finding]:
    """Finds values that explain nothing of the targets."""
    key = "value/explained_variance"
    worst = e.recent_share(key, -1e300, _EXPLAINED)
    if worst > 0.9 and e.progress >= _JUDGED and not e.is_solved:
        yield Finding(
            "poor values",
            WARNING,
            f"The explained variance of the values is {e.recent(key):.2f}. Values that"
            " help the policy are above 0.",
            f"Raise {' or '.join(map(e.field, _more_of_values(e)))}"
            + (
                "." if e.settings.get("loss.popart") else ", or set config.loss.popart."
            ),
        )


def _learns_action_values(e: Evidence) -> bool:
    return e.settings.get("algorithm") in derived.BY_VALUE


def _exploration(e: Evidence) -> str:
    """Returns the field that makes a run explore more, with its value."""
    by_value = _learns_action_values(e)
    return e.field("actors.epsilon" if by_value else "loss.entropy_cost")


def _more_of_values(e: Evidence) -> list[str]:
    """Returns the fields that let values learn more."""
    if not _learns_action_values(e):
        return ["loss.baseline_cost", "learner.passes"]
    return ["replay.reuse"] * (e.setting("replay.reuse") > 0.0) + ["learner.passes"]


def gradients(e: Evidence) -> Iterator[Finding]:
    """Finds gradients that explode, or that are always clipped to nearly nothing."""
    key = "loss/gradient_norm"
    clip, first, now = e.setting("optimizer.clip_norm"), e.first(key), e.recent(key)
    if now > _EXPLODED * first > 0.0:
        yield Finding(
            "exploding gradients",
            WARNING,
            f"The gradient norm grew from {_number(first)} to {_number(now)}.",
            _lower(e, ("optimizer.clip_norm", "optimizer.learning_rate")),
        )
    elif clip > 0.0 and e.recent_share(key, _CLIPPED * clip) > 0.95:
        yield Finding(
            "clipped gradients",
            HINT,
            f"The gradient norm is {_number(now)}, so every step is clipped to"
            f" {_number(clip)}.",
            f"Raise {e.field('optimizer.clip_norm')}, or scale the rewards down.",
        )


def off_policy(e: Evidence) -> Iterator[Finding]:
    """Finds data whose policy is far from the learner's."""
    kl, size = e.recent("vtrace/kl"), e.recent("vtrace/effective_sample_size")
    lag = e.recent("lag/mean") - max(0.0, e.setting("actors.policy_delay"))
    if kl > _KL:
        yield Finding(
            "large KL",
            WARNING,
            f"The learner's policy is {_number(kl)} nats from the one that acted."
            " Healthy runs stay below 0.1.",
            _lower(e, ("optimizer.learning_rate", "learner.passes", "actors.slots")),
        )
    if lag > _LAG:
        yield Finding(
            "large policy lag",
            WARNING,
            f"The data is {_number(lag)} updates old when it is learned.",
            _lower(e, ("max_policy_lag", "actors.slots", "actors.count")),
        )
    if size < _SAMPLES:
        yield Finding(
            "few effective samples",
            WARNING,
            f"Only {100 * size:.0f} % of each batch counts, because a few transitions"
            " have most of the weight.",
            _lower(e, ("max_policy_lag", "actors.slots", "optimizer.learning_rate")),
        )


def actions(e: Evidence) -> Iterator[Finding]:
    """Finds a discrete action that is always taken, or was never taken."""
    rows = [r.get("policy/actions") for r in e.records]
    rows = [_shares(row) for row in rows if isinstance(row, list) and sum(row) > 0]
    rows = [row for row in rows if len(row) == len(rows[0])]
    if len(rows) < _WINDOW or len(rows[0]) < 2:
        return
    late = rows[-max(_WINDOW, len(rows) // 10) :]
    for action, shares in enumerate(zip(*late, strict=True)):
        if min(shares) > _ALWAYS and e.falls_short:
            yield Finding(
                f"always action {action}",
                WARNING,
                f"Action {action} is taken {100 * min(shares):.1f} % of the time, and"
                f" the return is {_number(e.now)}.",
                f"Raise {_exploration(e)}, or lower"
                f" {e.field('optimizer.learning_rate')}.",
            )
    if e.settings.get("agent.action_mask_key") or not e.is_from_start:
        return
    never = [
        str(action)
        for action, shares in enumerate(zip(*rows, strict=True))
        if max(shares) < _NEVER
    ]
    if never:
        yield Finding(
            "unused actions",
            HINT,
            f"Actions never taken, not even at first: {', '.join(never)}.",
            "Check the environment's action space and the network's first logits.",
        )


def _shares(counts: list[float]) -> list[float]:
    """Returns the shares of actions, from shares or counts."""
    total = sum(counts)
    return [count / total for count in counts]


def endless_games(e: Evidence) -> Iterator[Finding]:
    """Finds games that all run into their limit, which they did not at first."""
    key = "episode/length_mean"
    first, now = e.first(key), e.recent(key)
    steady = e.recent_share(key, now - 1e-6, now + 1e-6)
    if steady > 0.5 and first < 0.9 * now and not e.is_solved:
        yield Finding(
            "games at their limit",
            HINT,
            f"Every game has {_number(now)} steps, as if a time limit ended it. The"
            f" first games had {_number(first)}.",
            "Check that waiting is not rewarded. Reward the goal, or charge each step.",
        )


RULES = (
    collapsed,
    deterministic,
    not_learning,
    poor_values,
    gradients,
    off_policy,
    actions,
    endless_games,
)
