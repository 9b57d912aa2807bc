"""Real processes, real kills: a run outlives crashed and hung children."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import harness
from tests.support import runs

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CATCH = _ROOT / "experiments" / "catch.py"
_YOUNG_CLOCK = _ROOT / "tests" / "support" / "young_clock"


def test_killed_actors_are_replaced_and_nothing_is_lost(start):
    run = start(runs.LONG)
    for number in range(6):
        victim = run.until_running(count=2)[number % 2]
        os.kill(victim["pid"], signal.SIGKILL)
        run.until(
            lambda victim=victim: any(
                p["index"] == victim["index"]
                and p["incarnation"] > victim["incarnation"]
                for p in run.until_running()
            )
        )
    before = run.records()[-1]["agent_steps"]
    run.until(lambda: run.records()[-1]["agent_steps"] > before)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.records()
    assert all(map(harness.identity_holds, records))
    assert records[-1]["health/restarts"] == 6
    assert records[-1]["health/discarded"] == 0


@pytest.mark.parametrize(
    "mode", ["actor", pytest.param("server", marks=pytest.mark.slow)]
)
def test_a_machine_that_was_just_booted_trains_like_any_other(start, mode):
    """Zero is no time that has passed: the monotonic clock starts at 1 s here."""
    zero = str(time.monotonic_ns())
    env = {"PYTHONPATH": str(_YOUNG_CLOCK), "YOUNG_CLOCK_ZERO_NS": zero}
    run = start(runs.LONG, f"--config.inference.mode={mode}", env=env)
    victim = run.until_running(count=2)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    run.until(lambda: run.records()[-1]["health/restarts"] == 1)
    before = run.records()[-1]["agent_steps"]
    run.until(lambda: run.records()[-1]["agent_steps"] > before)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert "Stopping on request" in run.text()
    assert all(map(harness.identity_holds, run.records()))


_REPLAY = ("--config.replay.ratio=0.5", "--config.replay.save=True")
_DQN = f"{_CATCH.with_name('cartpole.py')}:dqn"


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        pytest.param(_CATCH, (), id="plain"),
        pytest.param(_CATCH, _REPLAY, id="replay", marks=pytest.mark.slow),
        pytest.param(_DQN, (), id="dqn", marks=pytest.mark.slow),
    ],
)
def test_a_killed_learner_resumes(start, config, flags):
    often = "--config.checkpoint.interval_secs=0.5"
    run = start(runs.LONG, often, *flags, config=config)
    checkpoints = run.workdir / "checkpoints"
    run.until(lambda: checkpoints.is_dir() and any(checkpoints.glob("[0-9]*")))
    actors = {p["pid"] for p in run.until_running()}
    victim = run.until_running("learner")[0]
    os.kill(victim["pid"], signal.SIGKILL)
    run.until(
        lambda: any(
            p["incarnation"] == 1 and p["state"] == "running"
            for p in run.processes("learner")
        )
    )
    count = len(run.records())
    run.until(lambda: len(run.records()) > count + 2)
    # They only waited; others may have been slower to start.
    assert actors <= {p["pid"] for p in run.processes("actor")}
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.records()
    assert all(map(harness.identity_holds, records))
    steps = {(record["agent_steps"], record["updates"]) for record in records}
    assert len(steps) == len(records)
    assert harness.never_backwards(records)
    assert records[-1]["agent_steps"] > 1000


def test_nothing_survives_a_killed_supervisor(start, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    run = start(
        runs.LONG,
        "--config.evaluation.interval_steps=2000",
        env={"TMPDIR": str(temporary)},
    )
    run.until_running("learner")
    run.until_running("evaluator")
    pids = [p["pid"] for p in run.processes()]
    assert len(pids) == 5  # supervisor, learner, two actors, evaluator
    run.process.kill()
    run.process.wait()
    assert harness.survivors(pids, 5.0) == []
    assert list(temporary.iterdir()) == []


def test_a_hung_actor_is_killed_with_its_stacks_in_the_log(start):
    run = start(runs.LONG, "--config.health.hang_secs=1.5")
    victim = run.until_running()[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.until(
        lambda: any(
            p["incarnation"] == 1 and p["index"] == victim["index"]
            for p in run.until_running()
        )
    )
    assert "was silent for" in run.text()


_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1)


def _blocked(start, *flags, **kwargs):
    """Starts a run as a launcher does that blocks and ignores signals."""
    old = {number: signal.getsignal(number) for number in _BLOCKED}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [*_BLOCKED, signal.SIGUSR2])
    try:
        for number in _BLOCKED:
            signal.signal(number, signal.SIG_IGN)
        return start(*flags, **kwargs)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_signals_that_a_launcher_blocks_and_a_pause_harm_nothing(start, number):
    flags = (runs.LONG, "--config.health.hang_secs=1.5")
    run = _blocked(start, *flags, own_session=True)
    run.until_running(count=2)
    os.killpg(run.process.pid, signal.SIGSTOP)
    time.sleep(3.0)  # a pause, longer than hang_secs
    os.killpg(run.process.pid, signal.SIGCONT)
    run.process.send_signal(signal.SIGUSR1)
    run.until(lambda: list((run.workdir / "checkpoints").glob("[0-9]*")))
    assert {p["restarts"] for p in run.processes()} == {0}
    os.kill(run.until_running()[0]["pid"], signal.SIGKILL)
    run.until(lambda: "was killed by SIGKILL" in run.text())
    run.process.send_signal(number)
    assert run.wait() == 0, run.text()
    assert "was silent" not in run.text()
    assert "did not stop" not in run.text()


_HANGING = """
import os
import time
import gymnasium
from impala_mp.environments import catch


class Hanging(catch.CatchVectorEnv):
    def step(self, actions):
        while os.path.exists(f"{os.environ['DOOM']}.{os.getpid()}"):
            time.sleep(0.1)
        return super().step(actions)


gymnasium.register("Hanging-v0", vector_entry_point=Hanging)
"""


@pytest.mark.slow
def test_a_hung_environment_leaves_its_stacks(start, tmp_path):
    (tmp_path / "hanging.py").write_text(_HANGING)
    run = start(
        runs.LONG,
        "--config.environment.id=hanging:Hanging-v0",
        "--config.health.hang_secs=1.5",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "DOOM": str(tmp_path / "doom"),
        },
    )
    victim = run.until_running(count=2)[0]
    (tmp_path / f"doom.{victim['pid']}").touch()
    run.until(lambda: "restart in" in run.text())
    log = (run.workdir / "logs" / f"actor-{victim['index']}.log").read_text()
    assert 'hanging.py", line 11 in step' in log
    assert "hanging.py:11, in step)" in run.text()
    for place in (run.text(), (run.workdir / "logs" / "supervisor.log").read_text()):
        assert "was silent for" in place
        assert f"seeds of 0, actor {victim['index']}, incarnation 0" in place


@pytest.mark.slow
def test_back_pressure_is_not_a_hang(start):
    run = start(runs.LONG, "--config.health.hang_secs=1.5")
    learner = run.until_running("learner")[0]
    run.until_running()
    os.kill(learner["pid"], signal.SIGSTOP)  # the learner hangs, the actors wait
    run.until(lambda: any(p["incarnation"] == 1 for p in run.until_running("learner")))
    assert {p["incarnation"] for p in run.processes("actor")} == {0}


_BROKEN = """
import gymnasium


class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.burn()
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        self.burn()
        return self.observation_space.sample(), 1.0, False, False, {}

    def burn(self):
        if self.steps >= LIMIT:
            raise ValueError("the emulator is on fire")


gymnasium.register("Broken-v0", Broken)
"""


def test_an_error_of_the_environment_is_shown_at_once(start, tmp_path):
    """Every actor dies of it before the first update: no restart helps."""
    (tmp_path / "broken.py").write_text(_BROKEN.replace("LIMIT", "0"))
    run = start(
        "--config.environment.id=broken:Broken-v0",
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.wait() == 1
    text = run.text()
    _, found, shown = text.partition("died of the same error before the first update")
    assert found, text
    frame, source, error = shown.splitlines()[-3:]
    assert re.fullmatch(rf'  File "{tmp_path}/broken.py", line \d+, in burn', frame)
    assert source.strip() == 'raise ValueError("the emulator is on fire")'
    assert error == "ValueError: the emulator is on fire"
    assert "Traceback" not in text


def test_past_the_budget_the_run_stops_with_the_childs_traceback(start, tmp_path):
    (tmp_path / "broken.py").write_text(_BROKEN.replace("LIMIT", "50"))
    run = start(
        "--config.environment.id=broken:Broken-v0",
        "--config.health.max_restarts.actor=2",
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.wait() == 1
    text = run.text()
    assert "died 3 times within" in text
    cause = "ValueError: the emulator is on fire (" + str(tmp_path / "broken.py")
    assert text.count(cause) >= 3  # with every restart
    assert f"See {run.workdir}/logs/actor-" in text
    assert text.count("Traceback") == 1


@pytest.mark.slow
def test_a_killed_fork_server_takes_its_children_along(start):
    """Two in one seat would write to the same ring."""
    run = start(runs.LONG, "--config.checkpoint.interval_secs=0.5")
    run.until(lambda: len(run.records()) > 2)
    old = [p["pid"] for p in run.until_running(count=2)]
    old += [p["pid"] for p in run.processes("learner")]
    os.kill(runs.fork_server(run), signal.SIGKILL)
    run.until(lambda: "lost with the fork server" in run.text())
    assert harness.survivors(old, 10.0) == []
    run.until(lambda: {p["incarnation"] for p in run.until_running(count=2)} == {1})
    steps = run.records()[-1]["agent_steps"]
    run.until(lambda: run.records()[-1]["agent_steps"] > steps)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert all(map(harness.identity_holds, run.records()))
    assert "was announced" not in run.text()


def test_the_evaluator_reports_during_training(start):
    run = start(
        runs.LONG,
        "--config.evaluation.interval_steps=2000",
        "--config.evaluation.episodes=20",
    )
    run.until(lambda: [r for r in run.records() if "evaluation/return_mean" in r])
    evaluator = run.until_running("evaluator")[0]
    os.kill(evaluator["pid"], signal.SIGKILL)
    run.until(
        lambda: any(p["incarnation"] == 1 for p in run.until_running("evaluator"))
    )


@pytest.mark.slow
def test_the_inference_server_serves_and_is_replaced_when_killed(start):
    run = start(runs.LONG, "--config.inference.mode=server")
    run.until(lambda: run.records() and run.records()[-1]["updates"] > 20)
    for role in ("inference", "actor", "inference"):
        victim = run.until_running(role)[0]
        before = run.records()[-1]["updates"]
        os.kill(victim["pid"], signal.SIGKILL)
        run.until(
            lambda r=role, v=victim: any(
                p["incarnation"] > v["incarnation"]
                for p in run.until_running(r)
                if p["index"] == v["index"]
            )
        )
        run.until(lambda b=before: run.records()[-1]["updates"] > b + 20)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert all(map(harness.identity_holds, run.records()))


_MORTAL = """
import os
import gymnasium
from impala_mp.environments import catch


class Mortal(catch.CatchVectorEnv):
    def step(self, actions):
        if os.path.exists(f"{os.environ['DOOM']}.{os.getpid()}"):
            raise ValueError("this one is doomed")
        return super().step(actions)


gymnasium.register("Mortal-v0", vector_entry_point=Mortal)
"""


@pytest.mark.slow
def test_the_run_continues_without_an_actor_whose_budget_is_spent(start, tmp_path):
    (tmp_path / "mortal.py").write_text(_MORTAL)
    run = start(
        runs.LONG,
        "--config.environment.id=mortal:Mortal-v0",
        "--config.health.max_restarts.actor=1",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "DOOM": str(tmp_path / "doom"),
        },
    )
    for _ in range(2):
        victim = next(p for p in run.until_running(count=2) if p["index"] == 0)
        (tmp_path / f"doom.{victim['pid']}").touch()
        run.until(lambda v=victim["pid"]: v not in [p["pid"] for p in run.processes()])
    run.until(lambda: "CONTINUES WITH 1 ACTORS" in run.text())
    updates = run.records()[-1]["updates"]
    run.until(lambda: run.records()[-1]["updates"] > updates + 50)
    assert runs.status(run).returncode == 1
    assert "lost" in runs.status(run).stdout


@pytest.mark.slow
def test_memory_and_descriptors_stay_flat_over_10_000_updates():
    done = subprocess.run(
        [
            sys.executable,
            "tools/benchmark.py",
            "memory",
            f"--config={_CATCH}",
            "--json",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["memory_growth"] < 1.02
    assert result["descriptors_growth"] <= 0


@pytest.mark.slow
def test_a_minute_of_kills(start):
    """SIGKILL of a random actor every 2 seconds for a minute."""
    import random

    rng = random.Random(0)
    run = start(runs.LONG)
    run.until(lambda: run.records())
    segments = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir(f"/proc/{run.process.pid}/fd"))
    kills, end = 0, time.monotonic() + 60.0
    while time.monotonic() < end:
        os.kill(rng.choice(run.until_running())["pid"], signal.SIGKILL)
        kills += 1
        time.sleep(2.0)
    run.until(lambda: len(run.until_running()) == 2)
    assert len(os.listdir(f"/proc/{run.process.pid}/fd")) <= descriptors + 2
    pids = [p["pid"] for p in run.processes()]
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.records()
    assert all(map(harness.identity_holds, records))
    assert records[-1]["health/restarts"] >= kills - 1
    assert harness.survivors(pids, 1.0) == []
    assert set(os.listdir("/dev/shm")) <= segments
