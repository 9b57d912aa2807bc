"""Checker of an environment's contract: plays it and reports what training meets."""

import contextlib
from typing import Any

import gymnasium
import numpy as np
import torch

from impala_mp import errors, nest, seeding, specs
from impala_mp.config import derived, user_code
from impala_mp.environments import (
    bad_data,
    factory,
    findings as findings_lib,
    game_checker,
    observation_watch,
    random_play,
    tasks,
)

OK, WARNING, FAIL = findings_lib.OK, findings_lib.WARNING, findings_lib.FAIL
Finding = findings_lib.Finding
_COPIES = 2  # of the environment, at most
_LARGE = 100.0  # reward; larger ones make unscaled values hard to learn
_WIDE = 1000.0  # from bound to bound; wider boxes are reported
_NO_CHOICE = specs.DiscreteSpec(1)
_NEXT_STEP = (
    " In autoreset mode NEXT_STEP that step resets and ignores its action. Fix the"
    " vector environment, or leave autoreset to Gymnasium."
)


def check(config: Any) -> list[Finding]:
    """Plays copies of `config.environment` at random, up to three times.

    Several tasks are played one by one.
    """
    settings = config.environment
    each = zip(
        derived.task_names(settings), derived.task_suffixes(settings), strict=True
    )
    findings: list[Finding] = []
    for name, suffix in each:
        own = config.copy_and_resolve_references()
        own.environment.id = name
        if suffix:  # a single task has its observations under no key
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
    seeding.seed_globals(node)
    count = min(_COPIES, config.actors.environments or _COPIES)
    try:
        with contextlib.closing(factory.make(config.environment, 1)) as made:
            played = made.specs
        if played[0].waits:
            findings += [
                each for spec in played for each in _judge_actions(spec.action)
            ]
            findings += game_checker.check(config, played)
            return findings
        play = random_play.RandomPlay(
            config.environment,
            seeding.environment_seeds(node, count),
            config.agent.action_mask_key,
        )
        findings += _judge_actions(play.action)
        before = seeding.global_state()
        tape, watch = play.first()
        drawn = _drawn(before, seeding.global_state())
        findings += _judge_copies(tape, watch)
        findings += _judge_play(tape, watch, config)
        where = random_play.difference(tape, play.again(tape.actions))
        findings.append(_judge_determinism(where, drawn))
        findings.append(_judge_autoreset(tape, play, deterministic=not where))
    except (errors.BadInput, observation_watch.Broken) as error:
        findings.append(Finding(FAIL, "environment", str(error)))
    except bad_data.BadData as error:
        text = f"{error}. Training would discard its unrolls."
        findings.append(Finding(FAIL, "environment", text))
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
        return f"{list(spec.shape)} binary actions"
    return (
        f"{spec.dtype} {list(spec.shape)} from {min(spec.low):.6g} to"
        f" {max(spec.high):.6g}"
    )


def _concern(spec: Any) -> str:
    """Returns why these actions are hard to learn, with the cure; or ""."""
    if spec == specs.DiscreteSpec(1, getattr(spec, "start", 0)):
        return "with a single action nothing can be learned. Add actions"
    return _concern_of_bounds(spec) if isinstance(spec, specs.BoxSpec) else ""


def _concern_of_bounds(spec: specs.BoxSpec) -> str:
    """Returns why a fresh policy, whose normal is N(0, 1), fits the bounds badly."""
    if not spec.is_bounded:
        return (
            "not all bounds are finite and narrower than the dtype, so actions are not"
            " scaled to them. A fresh policy draws from N(0, 1), clipped to the bounds,"
            " and rarely goes beyond 3. Give the space the bounds that matter"
        )
    width = float(np.subtract(spec.high, spec.low).max())
    if width <= _WIDE:
        return ""
    return (
        "a fresh policy explores this whole range. An action moves by"
        f" {0.005 * width:.3g} when its mean moves by 0.01. Narrow the bounds to the"
        " range that matters"
    )


def _judge_copies(
    tape: random_play.Tape, watch: observation_watch.Watch
) -> list[Finding]:
    """Judges what a copy does to arrays that are not its own."""
    findings = []
    if tape.changes_actions:
        text = (
            "step() changes the array that it is given. Training hands out copies, so"
            " this does no harm here. Elsewhere it may. Copy the action first."
        )
        findings.append(Finding(WARNING, "actions", text))
    if watch.shared:
        text = (
            f"they share {watch.shared}, and a step of one changes it for the others."
            " Make the array in __init__ or reset, not in the class or the module."
        )
        findings.append(Finding(FAIL, "copies", text))
    return findings


def _judge_play(
    tape: random_play.Tape, watch: observation_watch.Watch, config: Any
) -> list[Finding]:
    microseconds = 1e6 * tape.step_secs / len(tape.rows[0].reward)
    speed = f"a step of one copy takes {microseconds:,.0f} µs."
    return [
        *(_judge_size(leaf, config.network) for leaf in watch.leaves),
        _judge_rewards(tape, config.loss),
        _judge_episodes(tape),
        *_list_numbers(tape),
        Finding(OK, "speed", speed),
    ]


def _judge_size(watch: observation_watch.LeafWatch, network: Any) -> Finding:
    """Judges one array, and the size of its values if nothing else is wrong."""
    finding = _judge_observations(watch)
    encoder = network.encoders.get(watch.path, network.torso)
    own = ":" in network.torso or ":" in encoder
    is_box = isinstance(watch.space, gymnasium.spaces.Box)
    if finding.verdict != OK or own or not is_box or network.normalise_observations:
        return finding
    spec = specs.array_spec(watch.space.shape, watch.space.dtype)
    largest = max(abs(float(watch.lowest)), abs(float(watch.highest)))
    if concern := specs.concern_of_size(spec, largest):
        return Finding(WARNING, finding.subject, f"{finding.text} But {concern}")
    return finding


def _judge_observations(watch: observation_watch.LeafWatch) -> Finding:
    subject, space = watch.path or "observations", watch.space
    layout = f"{space.dtype} {list(space.shape)}"
    if watch.num_bad:
        text = (
            f"{watch.num_bad} of {watch.num_values} values are not finite as float32."
            " Training would discard their unrolls. Fix the environment."
        )
        return Finding(FAIL, subject, text)
    if watch.num_outside:
        text = (
            f"{watch.num_outside} of {watch.num_values} values are outside"
            f" observation_space. They go from {watch.lowest:.6g} to"
            f" {watch.highest:.6g}, its bounds from {watch.bounds.low.min():.6g} to"
            f" {watch.bounds.high.max():.6g}. "
        )
        if watch.bounds.strict:
            text += "Training would discard their unrolls. Fix the environment."
            return Finding(FAIL, subject, text)
        text += (
            "Training uses them unchanged and counts them. Correct the bounds or the"
            " observations."
        )
        return Finding(WARNING, subject, text)
    if watch.cast:
        text = (
            f"they are {watch.cast} and are cast to {layout} at every step. Return"
            f" numpy.asarray(observation, numpy.{space.dtype})."
        )
        return Finding(WARNING, subject, text)
    text = f"{layout}; {watch.num_values} values, all within the bounds."
    return Finding(OK, subject, text)


def _judge_rewards(tape: random_play.Tape, loss: Any) -> Finding:
    """Judges the rewards of all steps that are not resets."""
    pairs = zip(tape.rows, tape.rows[1:], strict=False)
    rewards = np.concatenate([row.reward[~before.ended] for before, row in pairs])
    num_bad = int((~bad_data.are_finite(rewards)).sum())
    if num_bad:
        text = (
            f"{num_bad} of {len(rewards)} are not finite as float32. Training would"
            " discard their unrolls. Fix the environment."
        )
        return Finding(FAIL, "rewards", text)
    low, high = float(rewards.min()), float(rewards.max())
    text = f"from {low:.6g} to {high:.6g} in {len(rewards)} steps."
    if max(-low, high) > _LARGE and not _is_scaled(loss):
        text += (
            " Value errors of this size drown the policy gradient. Set"
            " config.loss.popart=True or config.loss.reward_clipping=abs_one, or divide"
            " the rewards in the environment."
        )
        return Finding(WARNING, "rewards", text)
    if loss.popart and not _in_reach(rewards):
        text += (
            " PopArt learns returns that vary by 1e-4 to 1e15 at unit scale. Multiply"
            " the rewards in the environment so that they are near 1."
        )
        return Finding(WARNING, "rewards", text)
    if not rewards.any():
        text += " Random play found no other reward: rewards are rare or missing."
    elif low == high:
        return _judge_constant(text, tape)
    return Finding(OK, "rewards", text)


def _in_reach(rewards: np.ndarray) -> bool:
    """Returns whether returns of up to 100 such rewards are within PopArt's limits."""
    largest = float(np.abs(rewards).max())
    return largest == 0.0 or 1e-6 < largest < 1e13


def _is_scaled(loss: Any) -> bool:
    return bool(loss.popart or loss.reward_clipping != "none")


def _judge_constant(text: str, tape: random_play.Tape) -> Finding:
    """Judges a constant reward: it is useful only if the episode length varies."""
    lengths = {length for i in range(tape.num_envs) for length in tape.lengths(i)}
    if len(lengths) == 1:
        text += (
            " Every step had this reward, and every episode had the same length"
            f" ({lengths.pop()} steps). No action made a difference. Check the reward"
            " function."
        )
        return Finding(WARNING, "rewards", text)
    text += " Every step had this reward, so only the episode length matters."
    return Finding(OK, "rewards", text)


def _judge_episodes(tape: random_play.Tape) -> Finding:
    count = sum(int(row.ended.sum()) for row in tape.rows)
    steps = len(tape.actions) * len(tape.rows[0].reward)
    if count:
        return Finding(OK, "episodes", f"{count} ended in {steps} random steps.")
    text = (
        f"none ended in {steps} random steps. Returns are reported at the end of an"
        " episode. If episodes never end, register the environment with"
        " max_episode_steps."
    )
    return Finding(WARNING, "episodes", text)


def _list_numbers(tape: random_play.Tape) -> list[Finding]:
    """Lists the user's numbers; nothing if `info` has none."""
    if not tape.numbers:
        return []
    names = ", ".join(f"env/{name}" for name in tape.numbers)
    text = f"the last info of an episode has {names}. They become metrics."
    return [Finding(OK, "numbers", text)]


def _drawn(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Returns the packages whose global generators were drawn from; "" for none."""
    names = [name for name in ("random", "numpy") if before[name] != after[name]]
    if not torch.equal(before["torch"], after["torch"]):
        names.append("torch")
    return ", ".join(names)


def _judge_determinism(where: str, drawn: str) -> Finding:
    if drawn:
        text = (
            f"it draws from the global generator of {drawn}. Each process seeds it from"
            " config.seed, so no two actors get the same numbers. But the copies of one"
            " process share it, and a reset with a seed does not repeat it. Draw all"
            " random numbers from self.np_random."
        )
        return Finding(WARNING, "determinism", text)
    if not where:
        text = "the same seeds and actions gave the same play."
        return Finding(OK, "determinism", text)
    text = (
        f"the same seeds and actions gave another play, first {where}. Training works,"
        " but runs cannot be repeated. Call super().reset(seed=seed), and draw all"
        " random numbers from self.np_random."
    )
    return Finding(WARNING, "determinism", text)


def _judge_autoreset(
    tape: random_play.Tape, play: random_play.RandomPlay, deterministic: bool
) -> Finding:
    """Judges the step after an end: a reset without reward, end or action."""
    subject = "autoreset"
    if not any(row.ended.any() for row in tape.rows[:-1]):
        return Finding(WARNING, subject, "not seen, because no episode ended.")
    for t, (before, row) in enumerate(zip(tape.rows, tape.rows[1:], strict=False)):
        after = f"step {t + 1} follows an end but"
        if row.ended[before.ended].any():
            return Finding(FAIL, subject, f"{after} is another end.{_NEXT_STEP}")
        rewards = row.reward[before.ended]
        if rewards.any():
            text = f"{after} has reward {rewards[0]:.6g}.{_NEXT_STEP}"
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
