"""Rules on the run itself: lost data, restarts, memory, idle processes, evaluations."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from impala_mp.config import base
from impala_mp.monitoring import evidence
from impala_mp.monitoring.evidence import ERROR, HINT, WARNING, Evidence, Finding
from impala_mp.storage import evaluations, files

_number = evidence.number

_SKIPPED = 0.01  # share of updates; a single one in a million is luck, not a fault
_DISCARDED = 0.2  # share of trajectories; a stop alone discards a few
_OUTSIDE = 1e-4  # share of observations; rounding puts a rare one outside
_DROPPED = 0.9  # share of replayed transitions that are not learned
# A learner that is idle for 80 % is usual on two cores; beyond this it is only waiting.
_IDLE = 0.95
# Growth over the last two thirds of a run. Allocators settle within the first third.
_GROWN, _GROWN_MIB = 1.25, 64.0
_SLOWER = 1.0 / 3.0  # of the speed before; other work on the machine takes half
_SLOWER_SECS = 120.0  # the speed of a shorter run means little
_DIFFERENT = 0.25  # share of all that was gained
_EVALUATIONS = 3  # of training, in a row; a single one may be unlucky
_JUDGED = 0.5  # share of the run; before, a greedy policy is often stuck
_EXPLORES = 0.5  # the same; exploration alone costs a healthy CartPole a third


def skipped_updates(e: Evidence) -> Iterator[Finding]:
    skipped, updates = e.last("health/updates_skipped"), e.last("updates")
    if skipped > 0:
        yield Finding(
            "skipped updates",
            ERROR if skipped > _SKIPPED * updates else WARNING,
            f"{skipped:,.0f} of {updates:,.0f} updates were skipped, because loss or"
            " gradient was not finite.",
            "Run impala-diagnose on a file in crashes/ to find the tensor. Lower"
            f" {e.field('optimizer.learning_rate')}, or set"
            f" {e.field('optimizer.clip_norm')}.",
        )


def restarts(e: Evidence) -> Iterator[Finding]:
    count = e.last("health/restarts")
    if count > 0:
        yield Finding(
            "restarts",
            WARNING,
            f"{count:,.0f} processes died or hung and were restarted.",
            "The last error of each is in impala-status and in logs/.",
        )


def bad_data(e: Evidence) -> Iterator[Finding]:
    """Finds data that was discarded, or that breaks the promise of a space."""
    bad, outside = e.last("health/bad_data"), e.last("health/observations_outside")
    if bad > 0:
        yield Finding(
            "bad data",
            WARNING,
            f"{bad:,.0f} unrolls were discarded, because of NaN, wrong shapes or wrong"
            " dtypes from the environment.",
            "Run impala-train --check on the environment, and see logs/actor-0.log.",
        )
    if outside > _OUTSIDE * e.last("agent_steps"):
        yield Finding(
            "observations outside",
            WARNING,
            f"{outside:,.0f} observations were outside the observation space of the"
            " environment. They were used.",
            "Correct low and high of the space, or clip the observations.",
        )


def discarded(e: Evidence) -> Iterator[Finding]:
    """Finds trajectories that were acted in vain."""
    lost, committed = e.last("health/discarded"), e.last("health/committed")
    if not lost > _DISCARDED * committed > 0.0:
        return
    if e.setting("max_policy_lag") < 0.0:
        why = "when a learner or the run ended, or when their policy was finished"
        cure = "See the restarts in impala-status, and the logs of learners in logs/."
    else:
        why = "as too old, or with a process"
        cure = (
            f"Raise {e.field('max_policy_lag')}, or lower {e.field('actors.slots')} or"
            f" {e.field('actors.count')}."
        )
    share = f"{100 * lost / committed:.0f} % of the trajectories"
    yield Finding("discarded data", WARNING, f"{share} were discarded {why}.", cure)


def defects(e: Evidence) -> Iterator[Finding]:
    """Finds broken promises of this package."""
    mixed, alarms = e.last("health/mixed_unrolls"), e.last("health/drift_alarms")
    if mixed > 0:
        yield Finding(
            "mixed unrolls",
            ERROR,
            f"In {mixed:,.0f} unrolls more than one version acted. This is a defect of"
            " impala_mp.",
            "Report it with the folder of the run.",
        )
    if alarms > 0:
        yield Finding(
            "drift",
            ERROR,
            f"{alarms:,.0f} drift checks failed: actor and learner compute different"
            " probabilities from the same parameters.",
            "The learner's log, in logs/, names the layer. A custom network must not"
            " depend on the batch or on random numbers.",
        )


def popart_limit(e: Evidence) -> Iterator[Finding]:
    lowest, highest = base.POPART_SCALES
    for name in e.has("popart/scale"):
        value = e.last(name)
        # Skipped updates count as 0 in a mean.
        low = 0.5 * lowest < value < 1.01 * lowest
        if low or value > 0.99 * highest:
            yield Finding(
                f"limit of {name}",
                WARNING,
                f"{name} is at its limit, {value:.3g}: value targets vary by"
                f" {'less' if low else 'more'}, and are not learned at unit scale. The"
                f" limits are {lowest:g} and {highest:g}.",
                "Multiply the rewards in the environment, unless all returns are"
                " equal.",
            )


def dropped_replay(e: Evidence) -> Iterator[Finding]:
    share = e.recent("replay/dropped_share")
    if share > _DROPPED:
        yield Finding(
            "dropped replay",
            WARNING,
            f"{100 * share:.0f} % of the replayed transitions are outside the trust"
            " region, so they are not learned.",
            f"Raise {e.field('replay.trust_region')}, or lower"
            f" {e.field('replay.memory_mib')}.",
        )


def idle(e: Evidence) -> Iterator[Finding]:
    """Finds a learner or actors that do nothing but wait."""
    learner, actors = e.recent("time/learner_wait"), e.recent("time/actor_wait")
    if learner > _IDLE:
        yield Finding(
            "idle learner",
            HINT,
            f"The learner waits {100 * learner:.0f} % of its time for data.",
            f"Raise {e.field('actors.count')} or"
            f" {e.field('actors.environments')}, or speed up the environment.",
        )
    if actors > _IDLE:
        yield Finding(
            "idle actors",
            HINT,
            f"The actors wait {100 * actors:.0f} % of their time for the learner.",
            f"Lower {e.field('actors.count')} and raise"
            f" {e.field('learner.threads')}, or set {e.field('learner.device')} to a"
            " GPU.",
        )


def memory(e: Evidence) -> Iterator[Finding]:
    """Finds private memory that grows without an end."""
    for key in e.has("memory/"):
        role = key.removeprefix("memory/").removesuffix("_mib")
        if role in ("arena", "device"):
            continue
        quarters = [
            e.between(key, start, start + 1 / 6) for start in (1 / 3, 1 / 2, 2 / 3)
        ]
        quarters.append(e.recent(key))
        grown = quarters[-1] - quarters[0]
        filling = e.setting("replay.memory_mib") if role == "learner" else 0.0
        shares = e.setting("replay.ratio"), e.setting("replay.reuse")
        replayed = filling if any(share > 0.0 for share in shares) else 0.0
        steps = [b - a for a, b in zip(quarters, quarters[1:], strict=False)]
        if (
            grown - replayed > _GROWN_MIB
            and quarters[-1] > _GROWN * quarters[0]
            and min(steps) > 0.15 * grown
        ):
            yield Finding(
                f"memory of {role}",
                WARNING,
                f"The memory of the {role} processes grew from {quarters[0]:,.0f} to"
                f" {quarters[-1]:,.0f} MiB and keeps growing.",
                "Look for a leak in the environment: lists that are never cleared,"
                " figures that are never closed.",
            )


def slower(e: Evidence) -> Iterator[Finding]:
    key = "throughput/agent_steps_per_sec"
    before, now = e.between(key, 0.0, 0.5), e.recent(key)
    if now < _SLOWER * before and e.last("time_secs") > _SLOWER_SECS:
        yield Finding(
            "slower",
            HINT,
            f"The speed fell from {_number(before)} to {_number(now)} steps a second.",
            "See the bottleneck in impala-status. Longer games, other work on the"
            " machine and a full disk are the usual causes.",
        )


def evaluation(e: Evidence) -> Iterator[Finding]:
    """Finds evaluations that differ from training, or from each other."""
    final = {
        str(each.get("policy")): each
        for each in e.evaluations
        if each.get("purpose") == "final" and evaluations.has_interval(each)
    }
    gained = max(abs(e.top - e.start), 1e-9)
    greedy, sampled = final.get("greedy"), final.get("sampled")
    if greedy and sampled and evaluations.are_apart(greedy, sampled):
        better = greedy["mean"] - sampled["mean"]
        means = (
            f"Greedy actions have a mean return of {_number(greedy['mean'])}, sampled"
            f" ones {_number(sampled['mean'])}."
        )
        if -better > _DIFFERENT * gained:
            cure = f"Set {e.field('evaluation.greedy')} to False, and act by samples."
            yield Finding("sampled is better", HINT, means, cure)
        elif better > _EXPLORES * gained:
            cure = f"Train longer, or lower {e.field('loss.entropy_cost')} at the end."
            yield Finding("greedy is better", HINT, means, cure)
    yield from _below_training(e, sampled)


def _below_training(e: Evidence, final: dict[str, Any] | None) -> Iterator[Finding]:
    """Finds evaluations that are worse than the games of training before them.

    final: of sampled actions; otherwise the last ones during training count.
    """
    played = [
        record
        for record in e.records
        if files.is_number(record.get("evaluation/return_mean"))
        and record.get("evaluation/episodes", 2) > 1
    ]
    if final:
        pairs = [(final["mean"], final["high"], e.now)]
    elif len(played) > _EVALUATIONS and e.progress > _JUDGED:
        # Training has moved since the parameters were taken: it is compared as of the
        # evaluation before.
        late = played[-_EVALUATIONS - 1 :]
        pairs = [
            (
                now["evaluation/return_mean"],
                now.get("evaluation/return_high", now["evaluation/return_mean"]),
                before.get("episode/return_mean", math.nan),
            )
            for before, now in itertools.pairwise(late)
        ]
    else:
        return
    room = _DIFFERENT * max(abs(e.top - e.start), 1e-9)
    if all(train - mean > room and train > high for mean, high, train in pairs):
        mean, _, train = pairs[-1]
        yield Finding(
            "evaluation below training",
            WARNING,
            f"The evaluation has a mean return of {_number(mean)}, the training"
            f" {_number(train)} before it.",
            "Check that both play the same game. Wrappers that act only in training,"
            f" {e.field('evaluation.max_steps')} and {e.field('evaluation.greedy')}"
            " differ.",
        )


RULES = (
    skipped_updates,
    restarts,
    bad_data,
    discarded,
    defects,
    popart_limit,
    dropped_replay,
    idle,
    memory,
    slower,
    evaluation,
)
