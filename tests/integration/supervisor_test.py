"""Real processes, real kills: the stop, crash and hang matrix of a training run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.support import runs as runs_lib

_YOUNG_CLOCK = pathlib.Path(__file__).resolve().parents[1] / "support" / "young_clock"


def test_killed_actors_are_replaced_and_nothing_is_lost(start):
    run = start(runs_lib.LONG)
    for number in range(6):
        victim = run.until_all_run()[number % 2]
        os.kill(victim["pid"], signal.SIGKILL)
        run.until(
            lambda victim=victim: any(
                p["index"] == victim["index"]
                and p["incarnation"] > victim["incarnation"]
                for p in run.until_running()
            )
        )
    before = run.metrics()[-1]["agent_steps"]
    run.until(lambda: run.metrics()[-1]["agent_steps"] > before)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.metrics()
    assert all(map(runs_lib.identity_holds, records))
    assert records[-1]["health/restarts"] == 6
    assert records[-1]["health/discarded"] == 0


@pytest.mark.parametrize("mode", ["actor", "server"])
def test_a_machine_that_was_just_booted_trains_like_any_other(start, mode):
    """Zero is no time that has passed: the monotonic clock starts at 1 s here."""
    zero = str(time.monotonic_ns())
    env = {"PYTHONPATH": str(_YOUNG_CLOCK), "YOUNG_CLOCK_ZERO_NS": zero}
    run = start(runs_lib.LONG, f"--config.inference.mode={mode}", env=env)
    victim = run.until_all_run()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    run.until(lambda: run.metrics()[-1]["health/restarts"] == 1)
    before = run.metrics()[-1]["agent_steps"]
    run.until(lambda: run.metrics()[-1]["agent_steps"] > before)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert "Stopping on request" in run.text()
    assert all(map(runs_lib.identity_holds, run.metrics()))


_REPLAY = ("--config.replay.ratio=0.5", "--config.replay.save=True")


@pytest.mark.parametrize("flags", [(), _REPLAY], ids=["plain", "replay"])
def test_a_killed_learner_goes_on_from_the_newest_checkpoint(start, flags):
    run = start(runs_lib.LONG, "--config.checkpoint.interval_secs=0.5", *flags)
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
    count = len(run.metrics())
    run.until(lambda: len(run.metrics()) > count + 2)
    assert actors == {p["pid"] for p in run.processes("actor")}  # they only waited
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    records = run.metrics()
    assert all(map(runs_lib.identity_holds, records))
    assert len({record["agent_steps"] for record in records}) == len(records)
    assert runs_lib.never_backwards(records)
    assert records[-1]["agent_steps"] > 1000


def test_nothing_survives_a_killed_supervisor(start, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    run = start(
        runs_lib.LONG,
        "--config.evaluation.interval_secs=0.5",
        env={"TMPDIR": str(temporary)},
    )
    run.until_running("learner")
    run.until_running("evaluator")
    pids = [p["pid"] for p in run.processes()]
    assert len(pids) == 5  # supervisor, learner, two actors, evaluator
    run.process.kill()
    run.process.wait()
    assert runs_lib.wait_dead(pids, 5.0) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint_and_the_run_goes_on_from_it(start, number):
    run = start(runs_lib.LONG)
    run.until(lambda: len(run.metrics()) > 2)
    pids = [p["pid"] for p in run.processes()]
    run.process.send_signal(number)
    assert run.wait() == 0, run.text()
    assert runs_lib.wait_dead(pids, 1.0) == []
    stopped = run.metrics()[-1]
    again = start(runs_lib.LONG)
    again.until(lambda: again.metrics()[-1]["agent_steps"] > stopped["agent_steps"])
    again.process.send_signal(number)
    assert again.wait() == 0
    assert f"Resuming from update {stopped['updates']:,}" in again.text()
    records = again.metrics()
    assert len({record["agent_steps"] for record in records}) == len(records)
    assert runs_lib.never_backwards(records)
    assert all(map(runs_lib.identity_holds, records))
    assert records[-1]["health/learned"] > stopped["health/learned"]


def test_a_signal_to_everyone_is_a_request_to_the_supervisor(start):
    """As `timeout` and Slurm send it: nothing that was learned is lost."""
    run = start(
        runs_lib.LONG, "--config.evaluation.interval_secs=0.5", own_session=True
    )
    run.until(lambda: len(run.metrics()) > 2)
    run.until_running("evaluator")
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.wait() == 0, run.text()
    last = run.metrics()[-1]
    assert last["health/checkpoint_update"] == last["updates"]
    assert last["health/restarts"] == 0
    assert "was killed" not in run.text()


def test_a_hung_actor_is_killed_with_its_stacks_in_the_log(start):
    run = start(runs_lib.LONG, "--config.health.hang_secs=1.5")
    victim = run.until_running()[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.until(
        lambda: any(
            p["incarnation"] == 1 and p["index"] == victim["index"]
            for p in run.until_running()
        )
    )
    assert "was silent for" in run.text()


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


def test_a_hung_environment_leaves_its_stacks(start, tmp_path):
    (tmp_path / "hanging.py").write_text(_HANGING)
    run = start(
        runs_lib.LONG,
        "--config.environment.id=hanging:Hanging-v0",
        "--config.health.hang_secs=1.5",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "DOOM": str(tmp_path / "doom"),
        },
    )
    victim = run.until_all_run()[0]
    (tmp_path / f"doom.{victim['pid']}").touch()
    run.until(lambda: "restart in" in run.text())
    log = (run.workdir / "logs" / f"actor-{victim['index']}.log").read_text()
    assert 'hanging.py", line 11 in step' in log
    for place in (run.text(), (run.workdir / "logs" / "supervisor.log").read_text()):
        assert "was silent for" in place
        assert f"seeds of 0, actor {victim['index']}, incarnation 0" in place


def test_back_pressure_is_not_a_hang(start):
    run = start(runs_lib.LONG, "--config.health.hang_secs=1.5")
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


@pytest.mark.parametrize(
    ("limit", "words"),
    [(0, "failed to start"), (50, "died 3 times within")],
    ids=["at_once", "later"],
)
def test_past_the_budget_the_run_stops_with_the_childs_traceback(
    start, tmp_path, limit, words
):
    (tmp_path / "broken.py").write_text(_BROKEN.replace("LIMIT", str(limit)))
    run = start(
        "--config.environment.id=broken:Broken-v0",
        "--config.health.max_restarts.actor=2",
        env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.wait() == 1
    text = run.text()
    assert words in text
    assert "ValueError: the emulator is on fire" in text
    assert text.count("Traceback") == 1


def test_late_children_are_named_and_killed(start):
    run = start(runs_lib.LONG, "--config.shutdown.deadline_secs=1.0")
    victim = run.until_all_run()[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert f"actor {victim['index']} (incarnation 0) did not stop" in run.text()
    assert runs_lib.wait_dead([victim["pid"]], 1.0) == []


def test_a_signal_and_its_echo_are_one_request_and_a_later_one_is_another(start):
    run = start(runs_lib.LONG, "--config.shutdown.deadline_secs=50.0")
    victim = run.until_all_run()[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    run.until(lambda: "Stopping on request" in run.text())
    run.process.send_signal(signal.SIGTERM)  # the echo: the deadline still holds
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.5)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert "did not stop at the second request" in run.text()
    assert "learner (incarnation" not in run.text()


def test_a_learner_that_is_late_costs_the_last_checkpoint_and_says_so(start):
    run = start(runs_lib.LONG, "--config.shutdown.deadline_secs=1.0")
    run.until(lambda: len(run.metrics()) > 2)
    os.kill(run.until_running("learner")[0]["pid"], signal.SIGSTOP)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 1
    assert "learner (incarnation 0) did not stop within 1 s" in run.text()
    assert "The same command resumes" not in run.text()


def test_a_killed_fork_server_takes_its_children_along(start):
    """Two in one seat would write to the same ring."""
    run = start(runs_lib.LONG, "--config.checkpoint.interval_secs=0.5")
    run.until(lambda: len(run.metrics()) > 2)
    old = [p["pid"] for p in run.until_all_run()]
    old += [p["pid"] for p in run.processes("learner")]
    os.kill(runs_lib.fork_server(run), signal.SIGKILL)
    run.until(lambda: "lost with the fork server" in run.text())
    assert runs_lib.wait_dead(old, 10.0) == []
    run.until(lambda: {p["incarnation"] for p in run.until_all_run()} == {1})
    steps = run.metrics()[-1]["agent_steps"]
    run.until(lambda: run.metrics()[-1]["agent_steps"] > steps)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert all(map(runs_lib.identity_holds, run.metrics()))
    assert "was announced" not in run.text()


def test_a_workdir_in_use_is_refused(start):
    run = start(runs_lib.LONG)
    run.until_running()
    second = start(runs_lib.LONG)
    assert second.wait() == 2
    assert "in use by a live run" in second.text()
    assert "Traceback" not in second.text()


def test_the_evaluator_reports_during_training(start):
    run = start(
        runs_lib.LONG,
        "--config.evaluation.interval_secs=0.2",
        "--config.evaluation.episodes=20",
    )
    run.until(lambda: [r for r in run.metrics() if "evaluation/return_mean" in r])
    evaluator = run.until_running("evaluator")[0]
    os.kill(evaluator["pid"], signal.SIGKILL)
    run.until(
        lambda: any(p["incarnation"] == 1 for p in run.until_running("evaluator"))
    )


def test_the_inference_server_serves_and_is_replaced_when_killed(start):
    run = start(runs_lib.LONG, "--config.inference.mode=server")
    run.until(lambda: run.metrics() and run.metrics()[-1]["updates"] > 20)
    for role in ("inference", "actor", "inference"):
        victim = run.until_running(role)[0]
        before = run.metrics()[-1]["updates"]
        os.kill(victim["pid"], signal.SIGKILL)
        run.until(
            lambda r=role, v=victim: any(
                p["incarnation"] > v["incarnation"]
                for p in run.until_running(r)
                if p["index"] == v["index"]
            )
        )
        run.until(lambda b=before: run.metrics()[-1]["updates"] > b + 20)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    assert all(map(runs_lib.identity_holds, run.metrics()))


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


def test_the_run_goes_on_without_an_actor_whose_budget_is_spent(start, tmp_path):
    (tmp_path / "mortal.py").write_text(_MORTAL)
    run = start(
        runs_lib.LONG,
        "--config.environment.id=mortal:Mortal-v0",
        "--config.health.max_restarts.actor=1",
        env={
            "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
            "DOOM": str(tmp_path / "doom"),
        },
    )
    for _ in range(2):
        victim = next(p for p in run.until_all_run() if p["index"] == 0)
        (tmp_path / f"doom.{victim['pid']}").touch()
        run.until(lambda v=victim["pid"]: v not in [p["pid"] for p in run.processes()])
    run.until(lambda: "GOES ON WITH 1 ACTORS" in run.text())
    updates = run.metrics()[-1]["updates"]
    run.until(lambda: run.metrics()[-1]["updates"] > updates + 50)
    assert runs_lib.status(run).returncode == 1
    assert "lost" in runs_lib.status(run).stdout


def test_status_from_a_second_terminal(start, tmp_path):
    run = start(runs_lib.LONG)
    run.until(lambda: run.metrics())
    run.until_all_run()
    done = runs_lib.status(run)
    assert done.returncode == 0, done.stdout
    for word in ("learner 0", "actor 1", str(run.process.pid), "agent steps/s"):
        assert word in done.stdout
    victim = run.until_all_run()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    run.until(lambda: "SIGKILL" in runs_lib.status(run).stdout)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert runs_lib.status(run).returncode == 0
    assert "stopped" in runs_lib.status(run).stdout
    other = subprocess.run(
        [sys.executable, "-m", "impala_mp.cli.status", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.returncode == 2
    assert "Traceback" not in other.stderr


def test_a_killed_supervisor_is_noticed_by_status(start):
    run = start(runs_lib.LONG)
    run.until(lambda: run.metrics())
    run.process.kill()
    run.process.wait()
    path = run.workdir / "health.json"
    health = json.loads(path.read_text())
    path.write_text(json.dumps({**health, "time": health["time"] - 60.0}))
    done = runs_lib.status(run)
    assert done.returncode == 1
    assert "it is gone" in done.stdout


def test_a_checkpoint_on_demand(start):
    run = start(runs_lib.LONG)
    run.until(lambda: run.metrics())
    run.process.send_signal(signal.SIGUSR1)
    run.until(lambda: list((run.workdir / "checkpoints").glob("[0-9]*")))
    updates = run.metrics()[-1]["updates"]
    run.until(lambda: run.metrics()[-1]["updates"] > updates)
    assert len(list((run.workdir / "checkpoints").glob("[0-9]*"))) == 1


def test_what_is_in_flight_is_learned_before_the_end(start):
    # A learner so slow that the rings are full whenever it is looked at.
    run = start(runs_lib.LONG, "--config.network.hidden_sizes=(1024,1024,1024)")
    run.until(lambda: run.metrics() and run.metrics()[-1]["health/in_flight"] > 128)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0, run.text()
    last = run.metrics()[-1]
    assert runs_lib.identity_holds(last)
    assert last["health/in_flight"] < 64


@pytest.fixture
def small_disk(tmp_path):
    """The checkpoints' folder as a file system of 4 MiB."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "impala_mp", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_nobody_and_is_said(start, small_disk):
    run = start(runs_lib.LONG, "--config.checkpoint.interval_secs=0.2")
    run.until(lambda: list(small_disk.glob("[0-9]*")))
    runs_lib.fill(small_disk)
    run.until(lambda: "checkpoints could not be written" in run.text())
    run.until(run.metrics)  # the first record comes after a second
    updates = run.metrics()[-1]["updates"]
    run.until(lambda: run.metrics()[-1]["updates"] > updates + 50)
    assert all(p["restarts"] == 0 for p in run.processes())
    (small_disk / "filler").unlink()
    run.until(lambda: run.metrics()[-1]["health/checkpoint_update"] > updates)
    runs_lib.fill(small_disk)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 1  # what was learned last is lost, and not silently
    assert "the last checkpoint could not be written" in run.text()


def test_a_profile_on_demand(start):
    run = start("--profile_updates=5")
    assert run.wait() == 0, run.text()
    for name in ("learner", "actor-0"):
        trace = json.loads((run.workdir / "profiles" / f"{name}.json").read_text())
        assert any("aten::" in event["name"] for event in trace["traceEvents"])
    assert len(os.listdir(run.workdir / "profiles")) == 2


@pytest.mark.slow
def test_memory_and_descriptors_stay_flat_over_10_000_updates():
    done = subprocess.run(
        [
            sys.executable,
            "tools/benchmark.py",
            "memory",
            f"--config={runs_lib._EXPERIMENTS / 'catch.py'}",
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
    run = start(runs_lib.LONG)
    run.until(lambda: run.metrics())
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
    records = run.metrics()
    assert all(map(runs_lib.identity_holds, records))
    assert records[-1]["health/restarts"] >= kills - 1
    assert runs_lib.wait_dead(pids, 1.0) == []
    assert set(os.listdir("/dev/shm")) <= segments
