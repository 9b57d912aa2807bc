"""Explains what limits a run, from the numbers of one record."""

import math

_IDLE = 0.15  # a process that waits for a smaller share of its time is busy


def explain(
    record: dict[str, float],
    num_actors: int,
    num_cores: int,
    device: str,
    server_threads: int = 0,
    num_ranks: int = 1,
    num_processes: int = 1,
) -> str:
    """Returns one or two sentences; "" while the numbers are missing.

    Args:
      record: has `time/learner_wait`, `time/actor_*` (shares of wall-clock time) and
        `time/*_step_ms` (milliseconds an agent step). Those of the learner are of the
        busiest of several processes.
      num_processes: that learn several policies.
    """
    waits = record.get("time/learner_wait", math.nan)
    actors_wait = record.get("time/actor_wait", math.nan)
    if not math.isfinite(waits + actors_wait):
        return ""
    environment = record["time/environment_step_ms"]
    inference = record["time/inference_step_ms"]
    costs = (
        f"An agent step takes {environment:.3g} ms of environment and"
        f" {inference:.3g} ms of inference."
    )
    learner = "learner" if num_processes == 1 else "busiest learner"
    if waits > _IDLE and waits >= actors_wait:
        learning = num_ranks * num_processes
        free = num_cores - num_actors - learning - server_threads
        last = _last_rank(record, num_actors, num_ranks)
        return (
            f"The {learner} waited {100 * waits:.0f} % of its time for data.{last}"
            f" {costs}"
            f" {_more_actors(waits, num_actors, free, num_cores)}"
        )
    if actors_wait > _IDLE:
        cure = "More learner.threads or a GPU" if device == "cpu" else "A faster GPU"
        return (
            f"The {learner} is the limit: the actors waited {100 * actors_wait:.0f} %"
            f" of their time for it. {costs} {cure} would help;"
            f" {_enough(actors_wait, num_actors)} of {num_actors} actors would do."
        )
    return f"Actors and learner keep each other busy. {costs}"


def _last_rank(record: dict[str, float], num_actors: int, num_ranks: int) -> str:
    """Returns a sentence on the rank that the others wait for; "" for a single one."""
    waited = record.get("ranks/waited_share", math.nan)
    if not waited > _IDLE:
        return ""
    rank, share = int(record["ranks/last"]), num_actors // num_ranks
    first, last = rank * share, (rank + 1) * share - 1
    filled = f"actor {first} fills it"
    hosts = range(rank, int(record.get("hosts/seats", 0)), num_ranks)
    if last > first or hosts:
        actors = f"actors {first} to {last}" if last > first else f"actor {first}"
        there = f" and actor hosts {', '.join(map(str, hosts))}" if hosts else ""
        filled = f"{actors}{there} fill it"
    return f" Rank {rank} had no batch in {100 * waited:.0f} % of the time; {filled}."


def brief(record: dict[str, float]) -> str:
    """Returns the limit of a run in half a line; "" while the numbers are missing."""
    waits = record.get("time/learner_wait", math.nan)
    actors_wait = record.get("time/actor_wait", math.nan)
    costs = {
        "environment": record.get("time/environment_step_ms", math.nan),
        "inference": record.get("time/inference_step_ms", math.nan),
    }
    if not math.isfinite(waits + actors_wait + sum(costs.values())):
        return ""
    if waits > _IDLE and waits >= actors_wait:
        most = max(costs, key=lambda name: costs[name])
        return (
            f"limit: the actors; faster {most} helps most ({costs[most]:.2g} ms a step)"
        )
    if actors_wait > _IDLE:
        return f"limit: the learner; the actors wait {100 * actors_wait:.0f} %"
    return "limit: none; actors and learner keep each other busy"


def _enough(actors_wait: float, num_actors: int) -> int:
    return max(1, math.ceil(num_actors * (1.0 - actors_wait)))


def _more_actors(waits: float, num_actors: int, free: int, num_cores: int) -> str:
    wanted = math.ceil(num_actors * waits / max(0.01, 1.0 - waits))
    if wanted <= free:
        return f"{wanted} more actors would keep it busy."
    if free > 0:
        return f"{wanted} more actors would keep it busy; {free} cores are free."
    return f"All {num_cores} cores are taken. Add cores, or speed up the environment."


def explain_stall(
    quiet_secs: float, processes: list[tuple[str, str]], unit: str = "rank"
) -> str:
    """Reports which process waits for which, from the (role, state) of each.

    `unit` is what several learners are: ranks, or processes.
    """
    counts: dict[str, dict[str, int]] = {}
    for role, state in processes:
        states = counts.setdefault(role, {})
        words = state.replace("_", " ")
        states[words] = states.get(words, 0) + 1
    learners = [state for role, state in processes if role == "learner"]
    states_of = [state.replace("_", " ") for state in learners] or ["unknown"]
    learner = states_of[0]
    if len(states_of) > 1:
        learner = ", ".join(f"{x} ({unit} {i})" for i, x in enumerate(states_of))
    others = [
        f"{role}s: {', '.join(f'{n} {state}' for state, n in states.items())}"
        for role, states in counts.items()
        if role not in ("learner", "supervisor")
    ]
    return (
        f"No update for {quiet_secs:.0f} s. The learner is {learner};"
        f" {'; '.join(others)}."
    )
