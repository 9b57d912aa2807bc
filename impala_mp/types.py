"""Data that flows between actor, ring and learner. Time first, batch second."""

import enum
from typing import Any, NamedTuple

Nest = Any  # arrays, tensors or specs in tuples, named tuples and dicts

NUMBERS = 32  # columns for the numbers of `info` at the end of an episode


class StepType(enum.IntEnum):
    """Place of a time step in its episode, nothing else."""

    FIRST = 0
    MID = 1
    LAST = 2


class TimeStep(NamedTuple):
    """Output of an environment: [T+1, B, ...], or [B, ...] for one step."""

    step_type: Nest  # uint8, a StepType
    reward: Nest  # float32, of the transition that led here; 0 at FIRST
    discount: Nest  # float32, 0 iff the episode terminated here
    observation: Nest  # in the environment's dtype
    acts: Nest = ()  # bool, False: the action is ignored; (): none is, but at LAST


class AgentOutput(NamedTuple):
    """Output of an actor-critic agent: [T, B, ...], or [B, ...] for one step.

    Other agents may return other fields beside `action`: `Agent.output_spec` declares
    them.
    """

    action: Nest
    policy_logits: Nest  # float32 [..., L], of the distribution that was sampled
    baseline: Nest  # float32


class LeagueGame(NamedTuple):
    """Whom the newest policy plays in a row's game, and what came of it."""

    player: Nest  # int32 [T, B], number of the player in the column
    opponent: Nest  # int64 [T, B], version of the snapshot; 0: the newest policy itself
    # float32 [T, B]: 1 won, 1/2 drawn, 0 lost, where a game against a snapshot is over,
    # in the first column of a side; NaN elsewhere
    result: Nest


class EpisodeEnd(NamedTuple):
    """Full-game statistics at transitions that end a game; NaN and 0 elsewhere.

    `numbers` is written at the end of a game only, and only if the trajectory's header
    `has_numbers`. A vector environment returns None instead when there are none.
    """

    episode_return: Nest  # float32 [T, B], undiscounted and unclipped
    episode_length: Nest  # int32 [T, B], agent steps
    numbers: Nest  # float64 [T, B, NUMBERS], the user's, by column; or NaN
    game: Nest = ()  # a LeagueGame; () without a league


class Header(NamedTuple):
    """Origin of each trajectory: int64 [B] each."""

    actor: Nest
    incarnation: Nest
    sequence: Nest  # number of the slot in its ring, from 0, never reused
    committed_ns: Nest  # CLOCK_MONOTONIC at commit
    has_numbers: Nest  # 1 if the user's numbers are written where games end
    column: Nest  # environment of the actor, from 0
    unroll: Nest  # of the actor; without a gap, its row 0 is the last row before


class Predecessor(NamedTuple):
    """T rows before row 0 of the last columns of a batch, the replayed ones.

    They compute the core state of row 0. Shapes below have the number of these columns
    as B.
    """

    time_step: TimeStep  # [T, B, ...]
    action: Nest  # [T, B, ...]
    core_state: tuple[Nest, ...]  # before these rows, [B, ...] a leaf
    there: Nest  # bool [B]; False: the rows are of no meaning


class Trajectory(NamedTuple):
    """T+1 time steps, T agent outputs, and the core state before row 0.

    Parameters never change within an unroll. Each row has its own version, so that
    a change would show. Only a batch with replayed trajectories has `before`.
    """

    time_step: TimeStep  # [T+1, B, ...]
    agent_output: Nest  # [T, B, ...], a named tuple by the agent's `output_spec`
    episode_end: EpisodeEnd  # [T, B]
    parameter_version: Nest  # int64 [T, B]
    core_state: tuple[Nest, ...]  # [B, ...] a leaf
    header: Header  # [B]
    before: Nest = ()  # a Predecessor, with replay.burn_in

    @property
    def shape(self) -> tuple[int, int]:
        """(T, B): transitions of a trajectory, and trajectories."""
        rows, columns = self.time_step.step_type.shape
        return rows - 1, columns


class Sample(NamedTuple):
    """Origin and loss weight of the trajectories of a batch: float32 [B] each."""

    weight: Nest  # importance weight of a replayed trajectory; 1 for a fresh one
    replayed: Nest  # 1 from the replay, 0 from the rings


# The axis of B in each field of a Trajectory.
BATCH_AXIS = Trajectory(1, 1, 1, 1, 0, 0, Predecessor(1, 1, 0, 0))  # type: ignore[arg-type]
