"""Does an environment keep its contract? Judged by what a training makes of it."""

from typing import Any, NamedTuple

import numpy as np

from impala_mp import errors, nest, seeding, specs
from impala_mp.config import derived, user_code
from impala_mp.environments import random_play, tasks

OK, WARNING, FAIL = "ok", "warning", "FAIL"
_COPIES = 2  # of the environment, at most
_LARGE = 100.0  # reward, beyond which values are hard to learn as they are
_WIDE = 1000.0  # from bound to bound; beyond it is reported
_NO_CHOICE = specs.DiscreteSpec(1)
_NEXT_STEP = (
    " In autoreset mode NEXT_STEP that step resets, and its action is ignored: mend the"
    " vector environment, or leave autoreset to Gymnasium."
)


class Finding(NamedTuple):
    """One line of a report."""

    verdict: str  # OK, WARNING or FAIL
    subject: str
    text: str


def check(config: Any) -> list[Finding]:
    """Plays copies of `config.environment` at random, up to three times over.

    Each of several tasks by itself.
    """
    settings = config.environment
    each = zip(
        derived.task_names(settings), derived.task_suffixes(settings), strict=True
    )
    findings: list[Finding] = []
    for name, suffix in each:
        own = config.copy_and_resolve_references()
        own.environment.id = name
        if suffix:  # alone, a task's observations are not under a key
            under, _, key = own.agent.action_mask_key.partition("/")
            own.agent.action_mask_key = key if under == tasks.OBSERVATION else ""
        findings += [
            finding._replace(subject=f"{finding.subject}{suffix}")
            for finding in _check_one(own)
        ]
    return findings


def _check_one(config: Any) -> list[Finding]:
    findings: list[Finding] = []
    node = seeding.sequence(config.seed, "actor")
    count = min(_COPIES, config.actors.environments or _COPIES)
    try:
        play = random_play.RandomPlay(
            config.environment,
            seeding.environment_seeds(node, count),
            config.agent.action_mask_key,
        )
        findings += _judge_actions(play.action)
        tape, watch = play.first()
        findings += _judge_play(tape, watch, config.loss)
        where = random_play.difference(tape, play.again(tape.actions))
        findings.append(_judge_determinism(where))
        findings.append(_judge_autoreset(tape, play, deterministic=not where))
    except (errors.BadInput, random_play.Broken) as error:
        findings.append(Finding(FAIL, "environment", str(error)))
    except Exception as error:  # a user's code may raise anything
        findings.append(Finding(FAIL, "environment", user_code.explain(error)))
    return findings


def _judge_actions(spec: specs.ActionSpec) -> list[Finding]:
    return [
        _judge_action(f"actions {path}".rstrip(), leaf)
        for path, leaf in nest.flatten_with_path(spec)
    ]


def _judge_action(subject: str, spec: Any) -> Finding:
    summary, concern = _summary(spec), _concern(spec)
    if concern:
        return Finding(WARNING, subject, f"{summary}: {concern}.")
    return Finding(OK, subject, f"{summary}.")


def _summary(spec: Any) -> str:
    """Returns the choices of one array of actions, in words."""
    if isinstance(spec, specs.DiscreteSpec):
        return f"one of {spec.num_actions} actions"
    if isinstance(spec, specs.MultiDiscreteSpec):
        return f"{list(spec.shape)}, of {list(spec.num_actions)} actions"
    if isinstance(spec, specs.MultiBinarySpec):
        return f"{list(spec.shape)} of yes or no"
    return (
        f"{spec.dtype} {list(spec.shape)} from {min(spec.low):.6g} to"
        f" {max(spec.high):.6g}"
    )


def _concern(spec: Any) -> str:
    """Returns what makes these actions hard to learn, with the cure; or ""."""
    if spec == specs.DiscreteSpec(1, getattr(spec, "start", 0)):
        return "there is no other, so nothing can be learned: add some"
    return _concern_of_bounds(spec) if isinstance(spec, specs.BoxSpec) else ""


def _concern_of_bounds(spec: specs.BoxSpec) -> str:
    """Returns what a fresh policy, whose normal is N(0, 1), makes of the bounds."""
    if not spec.is_bounded:
        return (
            "not all bounds are finite, so nothing is scaled to them: a fresh policy"
            " draws from N(0, 1), clipped to a bound that there is, and hardly ever"
            " tries what is beyond 3. Give the space finite bounds"
        )
    width = float(np.subtract(spec.high, spec.low).max())
    if width <= _WIDE:
        return ""
    return (
        "a fresh policy tries all of that alike, and an action moves by"
        f" {0.005 * width:.3g} where its mean moves by 0.01: narrow the bounds to what"
        " makes a difference"
    )


def _judge_play(
    tape: random_play.Tape, watch: random_play.Watch, loss: Any
) -> list[Finding]:
    microseconds = 1e6 * tape.step_secs / len(tape.rows[0].reward)
    speed = f"a step of one copy takes {microseconds:,.0f} µs."
    return [
        *map(_judge_observations, watch.leaves),
        _judge_rewards(tape, loss),
        _judge_episodes(tape),
        Finding(OK, "speed", speed),
    ]


def _judge_observations(watch: random_play.LeafWatch) -> Finding:
    subject, space = watch.path or "observations", watch.space
    layout = f"{space.dtype} {list(space.shape)}"
    if watch.num_bad:
        text = (
            f"{watch.num_bad} of {watch.num_values} values are not finite, and training"
            " would throw their unrolls away: mend the environment."
        )
        return Finding(FAIL, subject, text)
    if watch.num_outside:
        text = (
            f"{watch.num_outside} of {watch.num_values} values lie outside of"
            f" observation_space: they go from {watch.lowest:.6g} to"
            f" {watch.highest:.6g}, its bounds from {watch.bounds.low.min():.6g} to"
            f" {watch.bounds.high.max():.6g}. "
        )
        if watch.bounds.strict:
            text += "Training would throw their unrolls away: mend the environment."
            return Finding(FAIL, subject, text)
        text += (
            "Training takes them as they are, and counts them; correct the bounds, or"
            " the observations if they are what is wrong."
        )
        return Finding(WARNING, subject, text)
    if watch.cast:
        text = (
            f"they come as {watch.cast}, and are cast to {layout} at every step: return"
            f" observation.astype(numpy.{space.dtype})."
        )
        return Finding(WARNING, subject, text)
    text = f"{layout}; {watch.num_values} values, all within the bounds."
    return Finding(OK, subject, text)


def _judge_rewards(tape: random_play.Tape, loss: Any) -> Finding:
    """Of the steps that are no resets."""
    pairs = zip(tape.rows, tape.rows[1:], strict=False)
    rewards = np.concatenate([row.reward[~before.ended] for before, row in pairs])
    num_bad = int((~np.isfinite(rewards.astype(float))).sum())
    if num_bad:
        text = (
            f"{num_bad} of {len(rewards)} are not finite, and training would throw"
            " their unrolls away: mend the environment."
        )
        return Finding(FAIL, "rewards", text)
    low, high = float(rewards.min()), float(rewards.max())
    text = f"from {low:.6g} to {high:.6g} in {len(rewards)} steps."
    if max(-low, high) > _LARGE and not _is_scaled(loss):
        text += (
            " So large are the errors of values, then, and they drown the policy's"
            " gradient: set config.loss.popart=True, or"
            " config.loss.reward_clipping=abs_one, or divide them in the environment."
        )
        return Finding(WARNING, "rewards", text)
    if not rewards.any():
        text += " Random play has met no other: they are rare, or missing."
    elif low == high:
        return _judge_constant(text, tape)
    return Finding(OK, "rewards", text)


def _is_scaled(loss: Any) -> bool:
    return bool(loss.popart or loss.reward_clipping != "none")


def _judge_constant(text: str, tape: random_play.Tape) -> Finding:
    """A reward for each step is a fair task if an episode's length is the matter."""
    lengths = {length for i in range(tape.num_envs) for length in tape.lengths(i)}
    if len(lengths) == 1:
        text += (
            f" It is the same in every step, and so was the length of every episode"
            f" ({lengths.pop()} steps): no action has made a difference. Look whether"
            " the reward is what it should be."
        )
        return Finding(WARNING, "rewards", text)
    text += " It is the same in every step: what counts is an episode's length."
    return Finding(OK, "rewards", text)


def _judge_episodes(tape: random_play.Tape) -> Finding:
    count = sum(int(row.ended.sum()) for row in tape.rows)
    steps = len(tape.actions) * len(tape.rows[0].reward)
    if count:
        return Finding(OK, "episodes", f"{count} ended in {steps} random steps.")
    text = (
        f"none ended in {steps} random steps. Returns are reported where episodes end:"
        " if none ever does, register the environment with max_episode_steps."
    )
    return Finding(WARNING, "episodes", text)


def _judge_determinism(where: str) -> Finding:
    if not where:
        text = "the same seeds and actions gave the same play."
        return Finding(OK, "determinism", text)
    text = (
        f"the same seeds and actions gave another play, first {where}. It can be"
        " trained on, but no run can be repeated: call super().reset(seed=seed), and"
        " draw all that is random from self.np_random."
    )
    return Finding(WARNING, "determinism", text)


def _judge_autoreset(
    tape: random_play.Tape, play: random_play.RandomPlay, deterministic: bool
) -> Finding:
    """Whether the step after an end is a reset: no reward, no end, no action."""
    subject = "autoreset"
    if not any(row.ended.any() for row in tape.rows[:-1]):
        return Finding(WARNING, subject, "not seen, because no episode ended.")
    for t, (before, row) in enumerate(zip(tape.rows, tape.rows[1:], strict=False)):
        after = f"step {t + 1} comes after an end, and"
        if row.ended[before.ended].any():
            return Finding(FAIL, subject, f"{after} is an end again.{_NEXT_STEP}")
        rewards = row.reward[before.ended]
        if rewards.any():
            text = f"{after} has the reward {rewards[0]:.6g}.{_NEXT_STEP}"
            return Finding(FAIL, subject, text)
    if not deterministic or play.action == _NO_CHOICE:
        text = "the step after an end has no reward and no end."
        return Finding(OK, subject, text)
    actions = [
        play.others(action, row.ended)
        for action, row in zip(tape.actions, tape.rows, strict=False)
    ]
    where = random_play.difference(tape, play.again(actions))
    if where:
        text = f"another action right after an end makes a difference {where}."
        return Finding(FAIL, subject, text + _NEXT_STEP)
    return Finding(OK, subject, "the step after an end resets, and ignores its action.")
