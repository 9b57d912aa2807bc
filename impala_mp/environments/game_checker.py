"""Checker of a game of several players: plays it and reports what training meets."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from impala_mp import nest, seeding, specs, types
from impala_mp.environments import factory, findings

_GAMES = 2
_MIN_STEPS, _MAX_STEPS, _MAX_SECS = 300, 3000, 10.0
_Finding = findings.Finding


class _Tape(NamedTuple):
    """One play: row 0 is the reset; action t leads to row t + 1."""

    players: tuple[str, ...]
    rows: list[types.TimeStep]
    parts: list[list[types.TimeStep]]  # the same, policy by policy
    actions: list[types.Nest]
    returns: list[float]  # of all players' episodes
    num_outside: int
    step_secs: float  # mean, of one step of all games


def check(
    config: Any, policies: Sequence[specs.EnvironmentSpec]
) -> Iterator[findings.Finding]:
    """Plays games of `config.environment` at random, twice from the same seeds.

    Yields a finding by subject. `policies` are the specs of each.

    Raises:
      BadData: an observation or a reward cannot be learned from.
    """
    policies = [
        dataclasses.replace(
            spec, action_mask=config.agent.action_mask_key or spec.action_mask
        )
        for spec in policies
    ]
    count = _GAMES * sum(len(spec.players) for spec in policies)
    seeds = seeding.environment_seeds(seeding.sequence(config.seed, "actor"), count)
    tape = _play(config.environment, policies, seeds)
    yield from _judge_players(tape)
    yield _judge_masks(tape, policies)
    yield _judge_observations(tape)
    yield _judge_rewards(tape)
    yield _judge_episodes(tape)
    again = _play(config.environment, policies, seeds, tape.actions)
    yield _judge_determinism(tape, again)


def _play(
    environment: Any,
    policies: Sequence[specs.EnvironmentSpec],
    seeds: list[int],
    actions: list[types.Nest] | None = None,
) -> _Tape:
    """Plays `actions`, or random ones until episodes have ended or time is up."""
    rng = np.random.default_rng(0)
    with contextlib.closing(factory.make(environment, len(seeds))) as made:
        rows = [_copied(made.reset(seeds))]
        parts = [made.split(rows[-1])]
        played: list[types.Nest] = []
        returns: list[float] = []
        secs = 0.0
        while True:
            step = len(played)
            if actions is not None:
                if step == len(actions):
                    break
                action = actions[step]
            elif step >= (_MIN_STEPS if returns else _MAX_STEPS) or secs > _MAX_SECS:
                break
            else:
                drawn = tuple(map(_draw, policies, parts[-1], itertools.repeat(rng)))
                action = drawn if len(drawn) > 1 else drawn[0]
            start = time.perf_counter()
            row, end = made.step(nest.map_structure(np.array, action))
            secs += time.perf_counter() - start
            rows.append(_copied(row))
            parts.append(made.split(rows[-1]))
            played.append(action)
            returns += end.episode_return[~np.isnan(end.episode_return)].tolist()
        mean = secs / max(1, len(played))
        outside = made.num_outside
        return _Tape(made.players, rows, parts, played, returns, outside, mean)


def _copied(row: types.TimeStep) -> types.TimeStep:
    copied: types.TimeStep = nest.map_structure(np.array, row)
    return copied


def _draw(
    spec: specs.EnvironmentSpec, row: types.TimeStep, rng: np.random.Generator
) -> types.Nest:
    """Draws the agent's actions at random, within the mask."""
    count = len(row.step_type)
    if spec.action_mask:
        allowed = nest.at(row.observation, spec.action_mask)
        return np.where(allowed != 0, rng.random(allowed.shape), -1.0).argmax(-1)

    def draw(leaf: Any) -> np.ndarray:
        shape = (count, *leaf.array.shape)
        if isinstance(leaf, specs.BoxSpec):
            return rng.normal(size=shape).astype(np.float32)
        sizes = getattr(leaf, "num_actions", 2)
        high = np.reshape(sizes, leaf.array.shape) if np.ndim(sizes) else sizes
        return rng.integers(high, size=shape).astype(leaf.array.dtype)

    return nest.map_structure(draw, spec.action)


def _judge_players(tape: _Tape) -> Iterator[findings.Finding]:
    count = len(tape.players)
    names = ", ".join(tape.players[:8]) + ("..." if count > 8 else "")
    acts = np.stack([row.acts for row in tape.rows])
    share = float(acts.mean())
    rate = _GAMES / tape.step_secs if tape.step_secs else 0.0
    text = (
        f"{count} ({names}); {100 * share:.0f} % of their rows are"
        f" decisions; {rate:,.0f} moves/s by one core."
    )
    yield _Finding(findings.OK, "players", text)
    never = [
        player for p, player in enumerate(tape.players) if not acts[:, p::count].any()
    ]
    if never:
        text = (
            f"{', '.join(never)} never acted in {len(tape.actions)} random steps."
            " Nothing is learned for a player that never acts. Check the turns, or"
            " leave it out of possible_agents."
        )
        yield _Finding(findings.WARNING, "players", text)
    if not acts.any():
        yield _Finding(
            findings.FAIL, "players", "no player ever acts. Check the turns."
        )


def _judge_masks(
    tape: _Tape, policies: Sequence[specs.EnvironmentSpec]
) -> findings.Finding:
    masked = [(k, spec) for k, spec in enumerate(policies) if spec.action_mask]
    if not masked:
        return _Finding(findings.OK, "mask", "none; all actions are always allowed.")
    for (t, parts), (k, spec) in itertools.product(enumerate(tape.parts), masked):
        allowed = nest.at(parts[k].observation, spec.action_mask)
        empty = parts[k].acts & ~(allowed != 0).any(-1)
        if empty.any():
            player = spec.players[int(empty.argmax()) % len(spec.players)]
            text = (
                f"after {t} random steps it allows {player} no action, who is to act."
                " An agent would then play a forbidden one. Allow at least one."
            )
            return _Finding(findings.FAIL, "mask", text)
    text = "a player that acts has an action that is allowed."
    return _Finding(findings.OK, "mask", text)


def _judge_observations(tape: _Tape) -> findings.Finding:
    if tape.num_outside:
        text = (
            f"{tape.num_outside} are outside their space. Training uses them unchanged"
            " and counts them. Correct the bounds or the observations."
        )
        return _Finding(findings.WARNING, "observations", text)
    return _Finding(findings.OK, "observations", "all are within their bounds.")


def _judge_rewards(tape: _Tape) -> findings.Finding:
    rewards = np.stack([row.reward for row in tape.rows])
    text = f"from {rewards.min():.6g} to {rewards.max():.6g}."
    if not rewards.any():
        text += " Random play found no other reward: rewards are rare or missing."
    return _Finding(findings.OK, "rewards", text)


def _judge_episodes(tape: _Tape) -> findings.Finding:
    count, steps = len(tape.returns), len(tape.actions)
    if count:
        text = f"{count} of players ended in {steps} random steps of {_GAMES} games."
        return _Finding(findings.OK, "episodes", text)
    text = (
        f"none ended in {steps} random steps. Returns are reported at the end of an"
        " episode. Let players be terminated or truncated."
    )
    return _Finding(findings.WARNING, "episodes", text)


def _judge_determinism(one: _Tape, other: _Tape) -> findings.Finding:
    for t, rows in enumerate(zip(one.rows, other.rows, strict=True)):
        for name, *values in zip(types.TimeStep._fields, *rows, strict=True):
            pairs = zip(*map(nest.flatten, values), strict=True)
            if not all(np.array_equal(x, y, equal_nan=True) for x, y in pairs):
                text = (
                    "the same seeds and actions gave another play, first in"
                    f" {name} at step {t}. Training works, but runs cannot be repeated."
                    " Seed all random numbers in reset(seed=seed)."
                )
                return _Finding(findings.WARNING, "determinism", text)
    text = "the same seeds and actions gave the same play."
    return _Finding(findings.OK, "determinism", text)
