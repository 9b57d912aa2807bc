"""Plays the best answer to a run of tic-tac-toe: what it can win, side by side.

    python tools/best_response.py DIR [--sampled] [--checkpoint=best]

Looks at all 5,478 positions. The answer knows the run's policy, and takes the best of
all moves; a policy that cannot be beaten gains it 0. With --sampled the policy draws
its moves, and the values are expectations. The last line is JSON: `gain` of the answer
as first and as second player, and the number of `positions`.
"""

import argparse
import contextlib
import functools
import json

import numpy as np
import torch

from impala_mp import errors, nest, types
from impala_mp.cli import command_line
from impala_mp.environments import players
from impala_mp.evaluation import saved_run

_LINES = [
    *((i, i + 1, i + 2) for i in (0, 3, 6)),
    *((i, i + 3, i + 6) for i in range(3)),
    (0, 4, 8),
    (2, 4, 6),
]

Position = tuple[int, ...]  # of 9 cells: 1 the mover's, -1 the other's, 0 free


def moved(position: Position, cell: int) -> Position:
    """Returns the position after a move, as the next mover sees it."""
    return tuple(-1 if i == cell else -piece for i, piece in enumerate(position))


def free(position: Position) -> list[int]:
    return [i for i, piece in enumerate(position) if piece == 0]


def has_lost(position: Position) -> bool:
    """Returns whether the move before has won."""
    return any(all(position[i] == -1 for i in line) for line in _LINES)


def positions() -> list[Position]:
    """Returns every position that play can reach, the empty one first."""
    found: dict[Position, None] = {(0,) * 9: None}
    waiting = list(found)
    while waiting:
        position = waiting.pop()
        if has_lost(position):
            continue
        for cell in free(position):
            following = moved(position, cell)
            if following not in found:
                found[following] = None
                waiting.append(following)
    return list(found)


def gain(policy: dict[Position, np.ndarray], answers_first: bool) -> float:
    """Returns the value of the best answer, for the player that answers.

    Args:
      policy: probabilities of the 9 moves by position.
    """

    @functools.cache
    def value(position: Position, answers: bool) -> float:
        """The value for the player that is to move."""
        if has_lost(position):
            return -1.0
        moves = free(position)
        if not moves:
            return 0.0
        each = {cell: -value(moved(position, cell), not answers) for cell in moves}
        if answers:
            return max(each.values())
        chances = policy[position]
        return float(sum(chances[cell] * worth for cell, worth in each.items()))

    start = value((0,) * 9, answers_first)
    return start if answers_first else -start


def policy_of(run: saved_run.SavedRun, sampled: bool) -> dict[Position, np.ndarray]:
    """Returns the run's probabilities of the moves in all positions.

    Raises:
      BadInput: the run plays another game, or has a memory.
    """
    agent = run.agent()
    with contextlib.closing(run.environment(1)) as made:
        seen = made.spec.observation
    layout = {players.OBSERVATION: (3, 3, 2), players.ALLOWED: (9,)}
    found = isinstance(seen, dict) and {k: leaf.shape for k, leaf in seen.items()}
    if found != layout or agent.core_state_spec():
        raise errors.BadInput(
            f"{run.path} is no run of tic-tac-toe without a memory: it sees {seen}."
            " Name a run of experiments/connect.py:tictactoe."
        )
    every = [p for p in positions() if free(p) and not has_lost(p)]
    board = np.array(every).reshape(-1, 3, 3)
    planes = np.stack([board == 1, board == -1], -1)
    count = len(every)
    rows = types.TimeStep(
        step_type=np.full(count, types.StepType.MID, np.uint8),
        reward=np.zeros(count, np.float32),
        discount=np.ones(count, np.float32),
        observation={
            players.OBSERVATION: planes.astype(seen[players.OBSERVATION].dtype),
            players.ALLOWED: (board == 0).reshape(-1, 9),
        },
        acts=np.ones(count, bool),
    )
    with torch.inference_mode():
        outputs, *_ = agent.look(nest.tensors(rows), ())
        logits = agent.policy_logits(outputs)
    chances = torch.softmax(logits, -1).numpy()
    if not sampled:
        chances = np.eye(9)[logits.argmax(-1).numpy()]
    return dict(zip(every, chances, strict=True))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--checkpoint", default="newest")
    arguments = parser.parse_args()
    which = command_line.checkpoint(arguments.checkpoint)
    run = saved_run.SavedRun(arguments.folder, which=which)
    policy = policy_of(run, arguments.sampled)
    gains = {side: gain(policy, side == "first") for side in ("first", "second")}
    print(json.dumps({"gain": gains, "positions": len(positions())}))


if __name__ == "__main__":
    command_line.run(_main)
