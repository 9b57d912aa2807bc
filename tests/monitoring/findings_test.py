"""Findings of a live run: each once, in bounded memory and time."""

import numpy as np
import pytest

from impala_mp.config import base, fields
from impala_mp.monitoring import evidence, findings, metric_docs
from tests.support import records


def _watch(made, settings=records.SETTINGS):
    watcher = findings.Watcher(settings)
    return [(r["agent_steps"], s) for r in made for s in watcher.tick(r)]


def test_a_healthy_run_is_silent():
    assert _watch(records.make(300)) == []


def test_a_finding_is_reported_once_with_its_cure():
    made = records.make(300, health__bad_data=lambda t: int(t > 0.5))
    ((steps, sentence),) = _watch(made)
    assert 0.5 * records.TOTAL < steps < 0.6 * records.TOTAL
    assert sentence == (
        "1 unrolls were discarded, because of NaN, wrong shapes or wrong dtypes from"
        " the environment. Run impala-train --check on the environment, and see"
        " logs/actor-0.log."
    )


def test_restarts_are_left_to_the_supervisor():
    made = records.make(300, health__restarts=3)
    assert _watch(made) == []
    assert len(findings.find(made, records.SETTINGS)) == 1


def test_a_finding_that_came_back_is_reported_again_after_a_while():
    def drops(back):
        return lambda t: 0.99 if t < 0.2 or t > back else 0.1

    made = records.make(300, replay__dropped_share=drops(0.3))
    assert len(_watch(made)) == 1
    slow = {"time_secs": lambda t: 1e5 * t}
    made = records.make(300, replay__dropped_share=drops(0.6), **slow)
    assert len(_watch(made)) == 2


def test_the_live_findings_are_those_of_the_report():
    made = records.make(300, health__bad_data=1, vtrace__kl=0.9)
    live = {sentence for _, sentence in _watch(made)}
    assert live == {
        f"{each.sentence} {each.cure}" for each in findings.find(made, records.SETTINGS)
    }


def test_the_most_severe_finding_is_first():
    made = records.make(
        health__mixed_unrolls=1, health__restarts=2, time__learner_wait=0.99
    )
    severities = [each.severity for each in findings.find(made, records.SETTINGS)]
    assert severities == [evidence.ERROR, evidence.WARNING, evidence.HINT]


def test_memory_and_time_are_bounded(monkeypatch):
    judged = []
    judge = findings._judge

    def counted(rules, known):
        judged.append(len(known.records))
        return judge(rules, known)

    monkeypatch.setattr(findings, "_judge", counted)
    made = records.make(3000)
    _watch(made)
    assert max(judged) <= 512
    assert sum(judged) < 17 * len(made)


def _any_value(rng, key):
    """A number of any size; a list now and then, or nothing."""
    if key == "policy/actions":
        return rng.integers(0, 5, 3).tolist()
    kind = rng.integers(6)
    if kind == 0:
        return None
    if kind == 1:
        return 0.0
    return float(rng.normal() * 10.0 ** rng.integers(-9, 9))


@pytest.mark.parametrize("seed", range(150))
def test_no_record_is_too_odd_for_the_rules(seed):
    """A rule that fails would end a training."""
    rng = np.random.default_rng(seed)
    keys = [
        metric.key.replace("{", "").replace("}", "") for metric in metric_docs.METRICS
    ]
    settings = fields.flatten(base.get_base_config())
    watcher, made, steps = findings.Watcher(settings), [], 0
    present = rng.random(len(keys)) < rng.random()
    for _ in range(int(rng.integers(1, 60))):
        steps += int(rng.integers(0, 10_000))
        values = {
            key: _any_value(rng, key)
            for key, there in zip(keys, present, strict=True)
            if there
        }
        record = {key: value for key, value in values.items() if value is not None}
        record |= {"agent_steps": steps, "time_secs": steps / 1e3, "updates": steps}
        record["env_frames"] = steps
        made.append(record)
        watcher.tick(record)
    findings.find(made, settings if seed % 2 else {})
