"""A made-up folder of a run, with every file that a report shows."""

import json

from impala_mp.config import base, fields
from tests.support import records

PROCESS = {
    "role": "supervisor",
    "index": 0,
    "pid": 0,
    "incarnation": 0,
    "state": "finished",
    "restarts": 0,
    "heartbeat_age_secs": 0.0,
    "reason": "",
}
GIF = b"GIF89a" + bytes(20)


def _evaluation(policy, steps, mean, purpose="progress"):
    return {
        "purpose": purpose,
        "policy": policy,
        "agent_steps": steps,
        "mean": mean,
        "low": mean - 3.0,
        "high": mean + 3.0,
        "min": mean - 20.0,
        "max": mean + 20.0,
        "episodes": 100,
        "updates": steps // 1000,
        "time_secs": steps / 1e4,
    }


def write_lines(path, lines):
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write(folder, metrics=None, **settings):
    """Fills the folder of a run that ended well."""
    config = base.get_base_config()
    config.total_agent_steps = records.TOTAL
    for name, value in settings.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    (folder / "config.json").write_text(fields.to_json(config))
    (folder / "lock").write_text("..")
    made = metrics or records.make(
        health__run=lambda t: int(t > 0.5), env__success_rate=lambda t: t
    )
    write_lines(folder / "metrics.jsonl", made)
    learner = {**PROCESS, "role": "learner", "state": "ended", "reason": "exit code 0"}
    health = {"time": 1.8e9, "bottleneck": "Busy.", "stall": "", "live": []}
    health["processes"] = [PROCESS, learner]
    (folder / "health.json").write_text(json.dumps(health))
    write_lines(
        folder / "evaluations.jsonl",
        [_evaluation("random", 0, -1.5)]
        + [_evaluation("greedy", 250_000 * k, 25.0 * k) for k in (1, 2, 3)],
    )
    final = {p: _evaluation(p, 10**6, 98.5, "final") for p in ("greedy", "sampled")}
    (folder / "evaluation.json").write_text(json.dumps({**final, "sentence": ""}))
    change = {"time": 1.8e9, "agent_steps": 4e5, "name": "entropy_cost", "from": 0.01}
    write_lines(folder / "changes.jsonl", [{**change, "to": 0.002, "by": "impala-ctl"}])
    (folder / "film.gif").write_bytes(GIF)
    ancestor = {"run": "/runs/older", "checkpoint": "900", "agent_steps": 288000}
    ancestor |= {"time": 1.7e9, "arrays": {"a": "copied", "b": "other"}}
    lineage = {**ancestor, "run": "/runs/parent", "before": ancestor}
    (folder / "lineage.json").write_text(json.dumps(lineage))
