"""Rains faults on a real training, lets it recover, and judges what is left.

    python tools/chaos.py --minutes=10 --seed=0 [--json]
        [--env=catch|cartpole|recall|r2d2|spread-dqn|league|ID] [--learners=N]
        [--ranks=N] [--hosts=N] [--only=KIND,...]

Kills and freezes processes, has environments misbehave (faults/faulty_env.py),
stops and kills whole runs and resumes them from their workdir, fills the disk. With an
odd seed the actions come from an inference server, but in a league and with hosts. With
--hosts there are actor hosts, too, on a Ray cluster whose nodes are network namespaces:
hosts, nodes and links die as well. --only deals faults of these kinds, each when the
run has recovered from the one before, and a cluster has a spare node: recovery_secs and
learner_pause_secs are then of one fault. The last line is JSON; the exit code is 0 on
pass, 1 on fail, 2 on bad arguments.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import harness
from faults import (
    cluster as cluster_lib,
    deck as deck_lib,
    host_faults,
    run as run_lib,
    trainings,
    verdict as verdict_lib,
    watch as watch_lib,
)

_ROLES = ("actor", "learner", "inference", "evaluator")
_SETTINGS = {
    "health.checksums": "true",
    "health.hang_secs": 3,
    "health.start_secs": 20,
    "health.reset_secs": 20,
    # The budgets are for faults that stay; these go, but there are many of them.
    **{f"health.max_restarts.{role}": 1000 for role in _ROLES},
    "health.max_failed_starts": 10,
    "shutdown.deadline_secs": 5,
    "checkpoint.interval_secs": 1,
    "evaluation.interval_steps": 20_000,
    "evaluation.episodes": 10,
    "logging.interval_secs": 0.1,  # also the resolution of recovery_secs
}
_ENDLESS = 10**12  # agent steps
_START_SECS = 180.0  # with the nodes of a cluster
_RECOVERY_SHARE = 10  # at least one step of so many is learned undisturbed
_MIN_STEPS_PER_SEC = 500  # below which the last run has failed
_ORDER_SECS = 3.0  # until an environment follows an order


class Chaos:
    """Commits faults: `kill_actor` is `_kill` of "actor"."""

    def __init__(
        self, run: run_lib.Run, tell: Callable[[str], None], alone: bool = False
    ) -> None:
        """alone: each fault waits until the run has recovered."""
        self._run, self._tell, self._alone = run, tell, alone
        self._hosts = host_faults.HostFaults(run)
        self.faults: collections.Counter[str] = collections.Counter()

    def rain(self, faults: Iterator[deck_lib.Fault], seconds: float) -> None:
        start = due = time.monotonic()
        for fault in faults:
            if self._alone:
                self._run.settle()
            due = max(due + fault.gap_secs, time.monotonic())
            if due - start > seconds:
                break
            self._run.until(lambda due=due: time.monotonic() >= due, "time")
            verb, _, what = fault.kind.partition("_")
            if what in host_faults.VICTIMS:
                self._hosts.commit(verb, what, fault.choice, fault.share)
            else:
                getattr(self, f"_{verb}")(what, fault)
            self.faults[fault.kind] += 1
            self._tell(f"{time.monotonic() - start:7.1f} s  {fault.kind}")

    def _kill(self, role: str, fault: deck_lib.Fault) -> None:
        if role == "fork_server":
            seat = self._run.victim("learner", 0, running=False)
            self._run.wound("fork server", seat)
            self._run.signal(harness.parent(seat["pid"]), signal.SIGKILL)
            return
        if role == "supervisor":
            self._run.kill()
            self._run.start(_ENDLESS)
            return
        seat = self._run.victim(role, fault.choice, running=False)
        self._run.wound(role, seat)
        self._run.signal(seat["pid"], signal.SIGKILL)

    def _stop(self, what: str, fault: deck_lib.Fault) -> None:
        self._run.stop(wound="run")
        self._run.start(_ENDLESS)

    def _pause(self, role: str, fault: deck_lib.Fault) -> None:
        seat = self._run.victim(role, fault.choice)
        seconds = 0.2 + 1.3 * fault.share
        self._run.freeze(seat["pid"], until=time.monotonic() + seconds)

    def _freeze(self, role: str, fault: deck_lib.Fault) -> None:
        seat = self._run.victim(role, fault.choice)
        self._run.wound(f"hung {role}", seat)
        self._run.freeze(seat["pid"])

    def _fill(self, what: str, fault: deck_lib.Fault) -> None:
        self._run.disk.fill(until=time.monotonic() + 2.0 + 2.0 * fault.share)

    def _environment(self, order: str, fault: deck_lib.Fault) -> None:
        seat = None
        while seat is None:
            seat = self._ordered(order, self._run.victim("actor", fault.choice))
        if order == "raises":
            self._run.wound("actor", seat)
        if order == "hangs":
            self._run.wound("hung actor", seat)

    def _ordered(self, order: str, seat: dict[str, Any]) -> dict[str, Any] | None:
        """The actor, if its environment has committed the fault; None: withdrawn."""
        path = self._run.folder / f"fault.{seat['pid']}"
        written = path.with_name("fault.writing")
        written.write_text(order)
        written.rename(path)
        deadline = time.monotonic() + _ORDER_SECS
        self._run.until(lambda: not path.exists() or time.monotonic() > deadline, order)
        try:
            path.unlink()
        except FileNotFoundError:
            return seat
        return None


def torment(run: run_lib.Run, options: argparse.Namespace) -> dict[str, Any]:
    """Runs faults, recovery and a quiet end; returns counts of the whole run."""
    chaos = Chaos(run, _say_nothing if options.json else _tell, bool(options.only))
    lost, pause, skipped = 0.0, 0.0, dict[str, str]()
    try:
        kinds, skipped = deck_lib.dealt(options, run)
        run.open_cluster(run.folder.with_name("ray.out"), bool(options.only))
        run.start(_ENDLESS)
        run.until(run.is_whole, "record, or not all hosts,", _START_SECS)
        run.watch.learner_pause_secs = 0.0
        deck, _ = deck_lib.of(options)
        plan = deck_lib.plan(options.seed, deck, kinds)
        chaos.rain(plan, 60.0 * options.minutes)
        run.settle()
        lost, pause = run.watch.learning_secs_lost(), run.watch.learner_pause_secs
        run.stop()
        _finish(run, options.recovery_steps)
        run.check_hosts()
    except (run_lib.RunFailedError, cluster_lib.FailedError) as error:
        run.problems.append(str(error))
    return {
        "minutes": options.minutes,
        "only": options.only,
        "faults": dict(sorted(chaos.faults.items())),
        "faults_in_all": chaos.faults.total(),
        "skipped": skipped,
        "recoveries": sum(map(len, run.watch.recovery_secs.values())),
        "overtaken": run.overtaken,
        "recovery_secs": _recovery_secs(run.watch),
        "learner_pause_secs": round(pause, 2),
        "learning_secs_lost": round(lost, 1),
    }


def _finish(run: run_lib.Run, steps: int) -> None:
    """Learns `steps` more, or in proportion to what there is, undisturbed."""
    done = int(run.watch.last["agent_steps"])
    total = done + max(steps, done // _RECOVERY_SHARE)
    run.start(total)
    run.await_end(60.0 + (total - done) / _MIN_STEPS_PER_SEC)
    run.watch.look()
    if run.watch.last.get("agent_steps", 0) < total:
        run.problems.append(f"the run ended before it had learned {total:,} steps")


def _recovery_secs(watch: watch_lib.Watch) -> dict[str, dict[str, float]]:
    return {
        name: {
            "median": round(statistics.median(values), 2),
            "worst": round(max(values), 2),
        }
        for name, values in sorted(watch.recovery_secs.items())
    }


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    pass


# The command.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message.rstrip('.')}. See --help.", file=sys.stderr)
        sys.exit(2)


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _names(text: str) -> list[str]:
    return text.split(",")


def _arguments() -> argparse.Namespace:
    parser = _Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=_positive, default=10.0, help="that it rains (10)")
    add("--seed", type=_count, default=0, help="of the faults and of the training")
    add("--env", default="catch", help=f"{', '.join(trainings.KNOWN)} or an id")
    add("--target", type=float, help="for the final return; by default as learned")
    add("--learners", type=_count, default=1, help="processes that learn (1)")
    add("--ranks", type=int, choices=(1, 2), default=1, help="that learn together (1)")
    add("--hosts", type=_count, default=0, help="actor hosts (0)")
    add("--only", type=_names, default=[], help="kinds of fault, one after the other")
    add("--recovery_steps", type=_count, default=400_000, help="agent steps at the end")
    add("--workdir", type=pathlib.Path, help="to keep; else a temporary folder")
    add("--json", action="store_true", help="the JSON line only")
    options = parser.parse_args()
    if options.env not in trainings.KNOWN:
        _check_environment(options.env, parser)
    if options.target is None:
        options.target = trainings.of(options.env).target
    if options.learners > trainings.of(options.env).num_policies:
        parser.error(
            f"--learners={options.learners} must be at most the number of policies,"
            f" which is {trainings.of(options.env).num_policies} in {options.env}"
        )
    if options.ranks > 1 and not trainings.of(options.env).may_have_ranks:
        parser.error(f"--ranks={options.ranks} does not go with --env={options.env}")
    _check_hosts(options, parser)
    deck, skipped = deck_lib.of(options)
    for kind in options.only:
        if kind not in deck:
            why = skipped.get(kind, f"it is none of {', '.join(deck)}")
            parser.error(f"--only: there can be no {kind!r}, for {why}")
    if options.workdir and options.workdir.exists():
        parser.error(f"--workdir={options.workdir} is there already: name another")
    return options


def _check_hosts(options: argparse.Namespace, parser: _Parser) -> None:
    if options.hosts > cluster_lib.MAX_NODES:
        parser.error(f"--hosts={options.hosts} must be at most {cluster_lib.MAX_NODES}")
    if options.hosts and not trainings.of(options.env).may_have_hosts:
        parser.error(f"--hosts={options.hosts} does not go with --env={options.env}")
    if options.hosts and (cure := cluster_lib.problem()):
        parser.error(f"--hosts={options.hosts} is not possible here. {cure}")


def _check_environment(name: str, parser: _Parser) -> None:
    from impala_mp import errors  # brings torch, which takes seconds
    from impala_mp.environments import factory

    named = types.SimpleNamespace(id=name, kwargs={})
    try:
        factory.make(named, 1).close()
    except errors.BadInput as error:
        parser.error(f"--env={name}: {error}")


def main() -> None:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    base = pathlib.Path(options.workdir or tempfile.mkdtemp(prefix="impala-chaos-"))
    base = base.resolve()
    base.mkdir(parents=True, exist_ok=True)
    report = chaos(options, base)
    if report["verdict"] == "pass" and not options.workdir:
        shutil.rmtree(base)
        report["workdir"] = None
    if not options.json:
        verdict_lib.show(report)
    print(json.dumps(report))
    sys.exit(report["verdict"] != "pass")


def chaos(options: argparse.Namespace, base: pathlib.Path) -> dict[str, Any]:
    """One run under faults in the folder `base`, and the verdict on it."""
    segments = set(os.listdir("/dev/shm"))
    mode = "server" if deck_lib.served(options) else "actor"
    known = trainings.of(options.env)
    settings = {
        **_SETTINGS,
        **known.settings,
        "seed": options.seed,
        "inference.mode": mode,
        "learner.processes": options.learners,
        "learner.ranks": options.ranks,
        **(host_faults.SETTINGS if options.hosts else {}),
    }
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    experiment = trainings.experiment(options.env, base)
    arguments = [f"--config={experiment}", *flags]
    checkpoints = "policies" if known.num_policies > 1 else "checkpoints"
    run = run_lib.Run(base, arguments, checkpoints, options.hosts)
    try:
        told = torment(run, options)
        target, against = options.target, known.against
        found = verdict_lib.report(run, told, segments, target, against)
    finally:
        run.close()
    reasons = verdict_lib.judge(found, [*run.problems, *run.watch.unhealed])
    verdict = "fail" if reasons else "pass"
    return {"verdict": verdict, "reasons": reasons, **found, "workdir": str(base)}


if __name__ == "__main__":
    main()
