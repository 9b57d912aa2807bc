"""Cores for every thread, and the memory of a run in words."""

import os
import resource
from multiprocessing import context, popen_forkserver, reduction

import pytest

from impala_mp import errors
from impala_mp.monitoring import reporter
from impala_mp.runtime import allocation, child_process, life_pipe, resources
from impala_mp.transport import topology
from tests.support import builders, policy_parts, populations


@pytest.mark.parametrize(
    ("cores", "actors", "actor_threads", "learner_threads", "server_threads"),
    [
        ([0, 1], 1, 1, 1, 0),
        ([0, 1, 2], 1, 1, 1, 1),
        ([4, 5, 6, 7, 9], 2, 1, 2, 0),
        (list(range(16)), 3, 4, 4, 0),
        (list(range(16)), 3, 3, 4, 3),
    ],
)
def test_every_thread_has_a_core_of_its_own(
    cores, actors, actor_threads, learner_threads, server_threads
):
    threads = (actors, actor_threads, learner_threads, server_threads)
    plan = resources.plan(cores, *threads)
    (learner,) = plan.learners
    taken = [*learner, *plan.server, *(c for each in plan.actors for c in each)]
    wanted = actors * actor_threads + learner_threads + server_threads
    assert len(taken) == len(set(taken)) == wanted
    assert set(taken) <= set(cores)
    assert len(learner) == learner_threads
    assert len(plan.server) == server_threads
    assert [len(each) for each in plan.actors] == [actor_threads] * actors


@pytest.mark.parametrize(("actors", "serving"), [(2, 0), (1, 1)])
def test_too_few_cores_are_shared(actors, serving):
    plan = resources.plan([0, 1], actors, 1, 1, serving)
    assert plan == (((),), ((),) * actors, ())
    assert "the learner goes first" in resources.explain_cores(plan, 1, serving)


def _explained(cores, actors, actor_threads, learner_threads, server_threads=0):
    plan = resources.plan(cores, actors, actor_threads, learner_threads, server_threads)
    return resources.explain_cores(plan, learner_threads, server_threads)


def test_the_plan_is_reported():
    assert _explained([0, 1, 2], 2, 1, 1) == (
        "Cores: the learner has core 0, and 2 actors cores 1 to 2."
    )
    assert _explained([0, 1, 2, 3, 4], 2, 1, 1, 2) == (
        "Cores: the learner has core 0, the inference server cores 1 to 2, and 2"
        " actors cores 3 to 4."
    )
    cores = len(os.sched_getaffinity(0))
    assert _explained([0], 3, 1, 2, 1) == (
        "Cores: 3 actors, 1 inference and 2 learner threads share"
        f" {cores} cores; the learner goes first."
    )


def test_memory_is_counted():
    assert 10.0 < reporter.private_mib(os.getpid()) < 10_000.0
    assert reporter.private_mib(2**22 + 1) == 0.0
    text = resources.explain_memory(
        {"published": 3, "others": 3}, 3 * 2**20, 2**20, 2**19, 2**21
    )
    assert "3.0 MiB of trajectory rings" in text
    assert "6 copies: 3 published, 3 others." in text
    assert text.endswith(" The copy of the learner's state takes 2.0 MiB.")


def test_a_replay_that_cannot_be_saved_in_time_is_reported():
    size = 3 * 2**30
    assert resources.explain_replay(0, 0, True, 1.0) == ""
    plain = resources.explain_replay(5, size, False, 15.0)
    assert plain == "Replay: up to 5 trajectories, in 3,072.0 MiB."
    late = resources.explain_replay(5, size, True, 15.0)
    assert "may take 30 s" in late
    assert "Set config.shutdown.deadline_secs=60" in late
    assert resources.explain_replay(5, size, True, 60.0) == plain


@pytest.mark.parametrize(
    ("planned", "bound"),
    [((0, 1), {0}), ((1,), None), ((), None)],
)
def test_cores_that_were_taken_away_are_not_asked_for(monkeypatch, planned, bound):
    taken, nicer = [], []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: taken.append(cores))
    monkeypatch.setattr(os, "nice", nicer.append)
    resources.take_cores(planned, 5)
    assert taken == ([bound] if bound else [])
    assert nicer == ([] if bound else [5])


def test_cores_that_are_taken_away_just_now_do_no_harm(monkeypatch):
    def gone(pid, cores):
        raise OSError(22, "Invalid argument")

    nicer = []
    monkeypatch.setattr(os, "sched_setaffinity", gone)
    monkeypatch.setattr(os, "nice", nicer.append)
    resources.take_cores(tuple(os.sched_getaffinity(0)), 5)
    assert nicer == [5]


@pytest.mark.parametrize(
    ("limit", "refused"),
    [(100, True), (2**20, False), (resource.RLIM_INFINITY, False)],
)
def test_a_limit_of_the_size_of_files_is_named(monkeypatch, limit, refused):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    if refused:
        with pytest.raises(errors.BadInput, match="file of 1.0 MiB .*`ulimit -f unl"):
            resources.check_file_size(2**20)
    else:
        resources.check_file_size(2**20)


def test_a_limit_of_cpu_time_is_named(monkeypatch):
    assert resources.cpu_limit() == ""
    assert child_process.cause(-9) == "was killed by SIGKILL"
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (30, 30))
    assert "after 30 s of CPU time" in resources.cpu_limit()
    assert "SIGKILL, perhaps at the limit of CPU time" in child_process.cause(-9)
    assert child_process.cause(-11) == "was killed by SIGSEGV"


def _passed(policies):
    """Descriptors that multiprocessing passes to a child."""
    kind, life = popen_forkserver.Popen, life_pipe.LifePipe()
    start = kind.__new__(kind)
    start._fds = []
    context.set_spawning_popen(start)
    try:
        reduction.ForkingPickler.dumps((policies, life))
    finally:
        context.set_spawning_popen(None)
        life.close()
    assert len(set(start._fds)) == len(start._fds)
    return start._fds


@pytest.mark.parametrize(
    ("made", "overrides", "count"),
    [
        (policy_parts.config, {"actors.count": 128}, 2),
        (policy_parts.config, {"cluster.hosts": 300, "cluster.address": "auto"}, 2),
        (populations.get_config, {"actors.count": 40, "population.size": 40}, 40),
    ],
)
def test_a_child_can_be_passed_what_many_actors_policies_or_hosts_have(
    tmp_path, made, overrides, count
):
    config = made()
    config.update_from_flattened_dict(overrides)
    config.runtime.mode = "processes"
    policies = policy_parts.shared(config, tmp_path)
    seats = policies[0].topology
    assert len(policies) == count
    assert len(_passed(policies)) == resources.descriptors_passed(seats) <= 249
    resources.check_descriptors(config, seats)
    allocation.release(policies)


def test_too_many_processes_for_one_start_are_refused():
    config = builders.config()
    most = topology.make(200, num_policies=46, num_groups=46)
    assert resources.check_descriptors(config, most)
    more = topology.make(200, num_policies=48, num_groups=48)
    with pytest.raises(
        errors.BadInput, match=r"200 actors .* need 251 .* most 249\..*by 2"
    ):
        resources.check_descriptors(config, more)
    config.runtime.mode = "lockstep"
    assert resources.check_descriptors(config, more)


@pytest.mark.parametrize(
    ("number", "name"), [(34, "SIGRTMIN"), (40, "signal 40"), (63, "signal 63")]
)
def test_a_signal_without_a_name_has_its_number(number, name):
    assert child_process.cause(-number) == f"was killed by {name}"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("cpu:0", "numbers CPUs, which torch does not. Set config.learner.device=cpu"),
        ("mps", "is not supported. Use auto, cpu, cuda or cuda:N"),
        ("gpu", "must be auto, cpu, cuda or cuda:N"),
        ("cuda:9", "is not available: "),
    ],
)
def test_a_device_that_cannot_be_used_is_refused(device, text):
    with pytest.raises(errors.BadInput) as error:
        resources.check_device("learner.device", device)
    assert text in str(error.value)
