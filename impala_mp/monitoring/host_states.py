"""States of actor hosts in health.json: their form, and the order of a table."""

from typing import Any

_SHOWN = 20  # hosts in a table


def worst(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the hosts that a table has room for: those in trouble, then the slow."""
    trouble = {"lost": 0, "unreachable": 1, "restarting": 2, "pending": 3, "joining": 4}
    return sorted(
        states,
        key=lambda h: (trouble.get(h["state"], 9), h["steps_per_sec"], h["seat"]),
    )[:_SHOWN]


def is_whole(states: Any) -> bool:
    """Returns whether JSON has the states of hosts."""
    return isinstance(states, list) and all(
        isinstance(host, dict)
        and all(isinstance(host.get(k), kind) for k, kind in _KINDS.items())
        for host in states
    )


_NUMBER = (int, float)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("node", "state", "reason"), str),
    **dict.fromkeys(
        ("seat", "incarnation", "actors", "actors_alive", "steps_per_sec", "lag"),
        _NUMBER,
    ),
    **dict.fromkeys(("arrived", "lost", "age_p99_secs", "restarts"), _NUMBER),
    **dict.fromkeys(("reported", "on_the_way", "wire_mb_per_sec"), _NUMBER),
}
