"""The comparison with peers: what their logs say, stamped with seconds."""

import json
import sys

import pytest

import harness
import peers
from impala_mp import errors


@pytest.mark.parametrize(
    ("read", "line", "expected"),
    [
        (
            peers._read_record,
            '{"agent_steps": 10, "updates": 1, "episode/return_mean": 2.5}',
            {"agent_steps": 10, "episode/return_mean": 2.5},
        ),
        (peers._read_record, '{"agent_steps": 10}', {"agent_steps": 10}),
        (
            peers._read_table,
            "|    ep_rew_mean     | 22.3        |",
            {"episode/return_mean": 22.3},
        ),
        (peers._read_table, "|    total_timesteps | 256 |", {"agent_steps": 256.0}),
        (peers._read_table, "| rollout/           |             |", {}),
        (peers._read_table, "-----------------------", {}),
        (
            peers._read_log,
            "[2026-11-27 06:40:01,123][00123] Fps is (10 sec: 100.0). Total num"
            " frames: 40960. Throughput: 0: 8000.0. Samples: 30. Policy #0 lag: (min)",
            {"agent_steps": 40960.0},
        ),
        (
            peers._read_log,
            "[2026-11-27 06:40:01,124][00123] Avg episode reward: [(0, '-4.350')]",
            {"episode/return_mean": -4.35},
        ),
    ],
)
def test_a_line_of_each_framework(read, line, expected):
    assert read(line) == expected


@pytest.fixture
def train(tmp_path):
    """Trains with a script that pretends to be a peer; returns the records."""

    def run(script, secs):
        (tmp_path / "fake.py").write_text(script)
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/fake.py\n")
        python.chmod(0o755)
        fake = peers._ZOO._replace(module="fake", arguments=())
        folder = tmp_path / "run"
        values = {"environment": "Mine-v0", "seed": "0", "folder": str(folder)}
        peers._train(fake, str(python), values, secs)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


def test_reports_are_stamped_when_they_come(train):
    records = train(
        "import time\n"
        "for step in range(3):\n"
        "    print(f'| ep_rew_mean | {10.0 * step} |', flush=True)\n"
        "    print(f'| total_timesteps | {step} |', flush=True)\n"
        "    time.sleep(0.5)\n",
        secs=60.0,
    )
    assert [each["episode/return_mean"] for each in records] == [0.0, 10.0, 20.0]
    assert [each["agent_steps"] for each in records] == [0, 1, 2]
    stamps = [each["seconds from launch"] for each in records]
    assert stamps[-1] - stamps[0] >= 0.3


_FOREVER = (
    "import os, time\n"
    "if os.fork(): print('| ep_rew_mean | 1 |\\n| total_timesteps | 2 |', flush=True)\n"
    "else: open('{pid}', 'w').write(str(os.getpid()))\n"
    "time.sleep(600.0)\n"
)


def test_a_training_ends_at_its_limit_with_all_its_processes(train, tmp_path):
    pid = tmp_path / "pid"
    assert len(train(_FOREVER.format(pid=pid), secs=5.0)) == 1
    assert not harness.survivors([int(pid.read_text())], secs=10.0)


@pytest.mark.parametrize("script", ["print('| ep_rew_mean | 1 |')\n", "raise OSError"])
def test_a_training_without_a_return_is_a_sentence_and_is_repeated(train, script):
    with pytest.raises(errors.BadInput, match="gave no return"):
        train(script, secs=60.0)
    assert train("print('| ep_rew_mean | 1 |\\n| total_timesteps | 2 |')\n", secs=60.0)
