"""Records of a made-up training, as in metrics.jsonl: healthy by default."""

from impala_mp.config import base, fields

TOTAL = 1_000_000
SETTINGS = {**fields.flatten(base.get_base_config()), "total_agent_steps": TOTAL}


def _healthy(t):
    """Numbers at the share `t` of a run."""
    mean = 100.0 * min(1.0, 1.25 * t)
    return {
        "agent_steps": round(TOTAL * t),
        "updates": round(1000 * t),
        "time_secs": 1000.0 * t,
        "episode/return_mean": mean,
        "episode/return_min": mean - 20.0,
        "episode/return_max": mean + 20.0,
        "episode/length_mean": 50.0 + 20.0 * t,
        "episode/count": 20 + 10_000 * t,
        "policy/entropy": 1.4 - t,
        "policy/actions": [0.2, 0.3, 0.5],
        "value/explained_variance": min(0.9, 2.0 * t),
        "vtrace/kl": 0.01,
        "vtrace/effective_sample_size": 0.97,
        "loss/gradient_norm": 0.4 + t,
        "loss/learning_rate": 1e-3 * (1.0 - t),
        "lag/mean": 1.5,
        "popart/scale": 3.0,
        "throughput/agent_steps_per_sec": 1000.0,
        "time/learner_wait": 0.8,
        "time/actor_wait": 0.0,
        "memory/actor_mib": 300.0,
        "memory/learner_mib": 200.0,
        "health/restarts": 0,
        "health/bad_data": 0,
        "health/observations_outside": 0,
        "health/updates_skipped": 0,
        "health/mixed_unrolls": 0,
        "health/drift_alarms": 0,
        "health/discarded": 10,
        "health/committed": 10_000,
        "replay/dropped_share": 0.2,
    }


def make(count=200, until=1.0, **changed):
    """Returns records up to the share `until` of a run.

    changed: other values by key, with __ for /: numbers, or functions of the share.
    None leaves the key out.
    """
    records = []
    for number in range(count):
        t = until * (number + 1) / count
        record = _healthy(t)
        for key, value in changed.items():
            record[key.replace("__", "/")] = value(t) if callable(value) else value
        records.append({k: v for k, v in record.items() if v is not None})
    return records
