"""Topology: each row, ring and doorbell belongs to exactly one seat."""

import pathlib
import pickle
import random
import re

import pytest

import impala_mp
from impala_mp.transport import topology
from tests.support import builders, policy_parts

_PACKAGE = pathlib.Path(impala_mp.__file__).parent


def _random_counts(seed):
    rng = random.Random(seed)
    num_ranks = rng.randint(1, 4)
    num_policies = rng.randint(1, 4)
    return {
        "num_actors": rng.randint(num_ranks, 12),
        "evaluator": rng.random() < 0.5,
        "inference": rng.random() < 0.5,
        "num_policies": num_policies,
        "num_groups": rng.randint(1, num_policies),
        "num_ranks": num_ranks,
        "num_hosts": rng.choice([0, 0, 1, 2, 5]),
    }


def _bells(made):
    """{ring (policy, number): (rows whose doorbell its writer rings, its reader's)}."""
    bells = {}
    for learner in made.learners:
        for policy in learner.policies:
            for number in made.rings(policy, learner.rank):
                readers, writers = bells.setdefault((policy, number), ([], []))
                readers.append(learner.row)
                writers += [a.row for a in made.actors if a.index == number]
    return bells


@pytest.mark.parametrize("seed", range(200))
def test_rows_rings_and_doorbells_belong_to_one_seat_each(seed):
    counts = _random_counts(seed)
    made = topology.make(**counts)
    num_actors, num_policies = counts["num_actors"], counts["num_policies"]
    assert [seat.row for seat in made.seats] == list(range(len(made.seats)))
    sizes = {
        "learner": counts["num_groups"] * counts["num_ranks"],
        "actor": num_actors,
        "evaluator": counts["evaluator"],
        "inference": counts["inference"],
        "receiver": counts["num_hosts"] > 0,
    }
    for role, size in sizes.items():
        assert [seat.index for seat in made.of(role)] == list(range(size))
    assert sum(sizes.values()) == len(made.seats)
    bells = _bells(made)
    rings = range(num_actors + counts["num_hosts"])
    assert set(bells) == {(p, i) for p in range(num_policies) for i in rings}
    for (policy, number), (readers, writers) in bells.items():
        (reader,) = (made.seats[row] for row in readers)
        assert reader is made.learner(policy, made.readers(policy)[number])
        if number in made.host_rings:
            assert not writers  # here
            continue
        (writer,) = (made.seats[row] for row in writers)
        assert (writer.role, writer.index) == ("actor", number)
        assert policy in writer.policies
        assert reader is made.learner(policy, writer.rank)
        assert reader.rank == writer.rank
    for policy in range(num_policies):
        read, written = made.bells(policy)
        assert len(written) == len(rings)
        for number, row in enumerate(written):
            reader = made.learner(policy, made.readers(policy)[number])
            assert read[reader.rank] == reader.row
            writers = bells[policy, number][1] or [made.of("receiver")[0].row]
            assert [row] == writers
    assert made.num_policies == num_policies
    assert made == pickle.loads(pickle.dumps(made))


def test_a_process_has_one_doorbell_for_all_policies(tmp_path):
    made = policy_parts.config(
        **{"cluster.hosts": 3, "cluster.address": "auto", "runtime.mode": "processes"}
    )
    policies = policy_parts.shared(made, tmp_path)
    assert len(policies) == 2
    first = policies[0].rings
    for each in policies:
        assert each.rings.learner_doorbells == first.learner_doorbells
        assert each.rings.actor_doorbells == first.actor_doorbells
    *here, one, two, three = first.actor_doorbells
    assert one is two is three  # the receiver's
    bells = {*here, one, *first.learner_doorbells}
    assert len(bells) == len(policies[0].topology.actors) + 2


@pytest.mark.parametrize("seed", range(50))
def test_ranks_share_the_rings_and_learners_the_policies_evenly(seed):
    counts = _random_counts(seed)
    made = topology.make(**counts)
    ranks = range(counts["num_ranks"])
    shares = [made.rings(rank=rank) for rank in ranks]
    here = [tuple(n for n in s if n < counts["num_actors"]) for s in shares]
    there = [set(s) & set(made.host_rings) for s in shares]
    for parts in (here, there):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    assert sum(here, ()) == tuple(range(counts["num_actors"]))  # neighbours
    taken = [len(seat.policies) for seat in made.learners]
    assert max(taken) - min(taken) <= 1
    assert min(taken) >= 1


def test_one_learner_reads_what_all_actors_write():
    made = topology.make(3, evaluator=True, inference=True)
    roles = ["learner", "actor", "actor", "actor", "evaluator", "inference"]
    assert [seat.role for seat in made.seats] == roles
    assert made.learner().row == 0
    assert made.rings() == (0, 1, 2)


def test_a_run_has_a_row_for_each_seat_and_a_ring_for_each_actor(tmp_path):
    overrides = {"evaluation.during_training": True, "inference.mode": "server"}
    config = builders.config(**{**overrides, "actors.environments": 2})
    shared = builders.shared(config, tmp_path)
    assert len(shared.topology.seats) == 1 + config.actors.count + 2
    for seat in shared.topology.seats:
        shared.row(seat).set("pid", 100 + seat.row)
    pids = [shared.row(seat).get("pid") for seat in shared.topology.seats]
    assert pids == list(range(100, 100 + len(pids)))
    with pytest.raises(IndexError):
        shared.control.row(len(pids))
    assert len(shared.rings.heads()) == len(shared.topology.actors)
    assert len(shared.cores.actors) == len(shared.topology.actors)


def test_no_other_module_computes_a_row():
    found = [
        path.relative_to(_PACKAGE).as_posix()
        for path in sorted(_PACKAGE.rglob("*.py"))
        if re.search(r"\bcontrol\.row\(|len\(.*actor_doorbells\)", path.read_text())
    ]
    assert found == ["transport/shared.py"]
