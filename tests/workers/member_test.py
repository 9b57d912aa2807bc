"""A member obeys each order once, also if it is killed, and copies exactly."""

import contextlib
import json
import os

import pytest
import torch

from impala_mp.monitoring import live_control, population
from impala_mp.storage import checkpoint
from impala_mp.transport import population_block
from impala_mp.workers import (
    checkpoint_writer,
    game_log,
    learner_loop,
    learner_process,
    member,
)
from tests.support import lockstep_runs, populations

_COPIED = ("parameters", "optimizer", "algorithm", "popart_batches")
_LOSER, _SOURCE, _OTHER = 0, 2, 1
_SCORES = [1.0, 2.0, 3.0]


class _Killed(Exception):
    """The process ends here."""


@pytest.fixture
def parts(tmp_path):
    made = populations.Parts(tmp_path)
    with contextlib.closing(made):
        made.train(2)
        yield made


def _states(parts):
    """The state of each member in the learner's process."""
    return [loop._learner.state_dict() for loop in parts.loops]


def _saved(parts):
    return [checkpoint.load_newest(each.checkpoints, print) for each in parts.shared]


def _assert_copied(mine, theirs):
    for key in _COPIED:
        lockstep_runs.assert_same(mine[key], theirs[key], key)


def _same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def _turn(parts):
    """Does what the learner's process does between two updates."""
    learner_process.obey(parts.loops)
    parts.save()


def _round_and_turn(parts):
    parts.round(1, _SCORES)
    _turn(parts)


def test_a_copy_is_exact_and_keeps_its_own_counters(parts):
    parts.train(1)
    before = _states(parts)
    assert not _same(before[_LOSER]["parameters"], before[_SOURCE]["parameters"])
    parts.round(1, _SCORES)
    _turn(parts)
    after, saved = _states(parts), _saved(parts)
    _assert_copied(after[_LOSER], before[_SOURCE])
    _assert_copied(saved[_LOSER]["learner"], saved[_SOURCE]["learner"])
    for number in (_SOURCE, _OTHER):
        lockstep_runs.assert_same(after[number], before[number])
    for key in ("updates", "agent_steps"):
        assert after[_LOSER][key] == before[_LOSER][key]
    assert [each.obeyed for each in parts.block.reports()] == [1, 0, 0]
    assert [each["population"]["copies"] for each in saved] == [1, 0, 0]


def test_the_actors_of_a_copy_play_with_what_it_has_copied(parts):
    parts.round(1, _SCORES)
    _turn(parts)
    for actor in parts.actors:
        actor.fetch()
    mine, theirs = (
        parts.actors[number].parties[0].parameters.buffer
        for number in (_LOSER, _SOURCE)
    )
    assert (mine == theirs).all()


def test_a_copy_begins_without_games(parts):
    parts.train(30)
    games = parts.loops[_LOSER]._games
    count = games.metrics()["episode/count"]
    assert count >= 20
    parts.round(1, _SCORES)
    _turn(parts)
    assert games.metrics() == {"episode/count": count}
    assert games.recent_return(1) != games.recent_return(1)


# Where the process is killed: what raises in place of its work, and after which call.
_STEPS = {
    "before it sees the order": (population_block.PopulationBlock, "order", 0),
    "after its tensors": (game_log.GameLog, "forget", 0),
    "after the copy": (learner_loop.LearnerLoop, "publish", 0),
    "after the publication": (checkpoint_writer.CheckpointWriter, "require", 0),
    "before any is saved": (learner_loop.LearnerLoop, "save", 0),
    "before the checkpoint is renamed": (checkpoint.os, "rename", 0),
    "before the acknowledgement": (member.Member, "saved", 0),
    "when only the copy is saved": (learner_loop.LearnerLoop, "save", 1),
    "when all but one are saved": (learner_loop.LearnerLoop, "save", 2),
}


@pytest.mark.parametrize("step", list(_STEPS))
def test_an_order_is_obeyed_once_wherever_the_learner_is_killed(
    parts, monkeypatch, step
):
    for loop in parts.loops:
        loop.save()
    parts.train(2)
    place, name, calls = _STEPS[step]
    real, made = getattr(place, name), []

    def dies(*args, **kwargs):
        made.append(1)
        if len(made) > calls:
            raise _Killed
        return real(*args, **kwargs)

    parts.round(1, _SCORES)
    original = _states(parts)[_SOURCE]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, dies)
        with pytest.raises(_Killed):
            _turn(parts)
    is_saved = _saved(parts)[_LOSER]["population"]["copies"] == 1
    assert is_saved == (list(_STEPS).index(step) > 5)
    parts.restart()
    parts.population.look()
    _turn(parts)
    copies = [loop.member.state_dict()["copies"] for loop in parts.loops]
    assert copies == [1, 0, 0]
    assert [each.obeyed for each in parts.block.reports()] == [1, 0, 0]
    saved = _saved(parts)
    assert [each["population"]["obeyed"] for each in saved] == [1, 0, 0]
    # The source may have been restored as of an earlier update than the copy.
    source = original if is_saved else saved[_SOURCE]["learner"]
    _assert_copied(saved[_LOSER]["learner"], source)
    # It is not obeyed again, by this process or by the next.
    parts.train(2)
    before = _states(parts)
    _turn(parts)
    lockstep_runs.assert_same(_states(parts), before)
    parts.restart()
    _turn(parts)
    copies = [loop.member.state_dict()["copies"] for loop in parts.loops]
    assert copies == [1, 0, 0]


def test_a_copy_that_could_not_be_saved_is_not_acknowledged(parts, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    parts.round(1, _SCORES)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        _turn(parts)
    assert parts.block.reports()[_LOSER].obeyed == 0
    # It gets no other order until then.
    parts.round(2, _SCORES)
    assert parts.block.order(_LOSER).number == 1
    for loop in parts.loops:
        loop.save()
    assert parts.block.reports()[_LOSER].obeyed == 1
    parts.round(3, _SCORES)
    assert parts.block.order(_LOSER) == (3, _SOURCE)


# The supervisor.

_ORDERS = {
    "before its line": (population.files, "append"),
    "before the live values": (live_control.LiveControl, "set_for_population"),
    "before the order": (population_block.PopulationBlock, "give_order"),
    "after the order": (learner_process, "obey"),
    "before the copy is saved": (learner_loop.LearnerLoop, "save"),
}


@pytest.mark.parametrize("step", list(_ORDERS))
def test_an_order_is_obeyed_once_wherever_the_run_is_killed(
    parts, monkeypatch, tmp_path, step
):
    """All processes are killed, and nothing of their memory is left."""
    parts.train(8)  # of 28 steps each: a round is complete, and saved
    for loop in parts.loops:
        loop.save()
    place, name = _ORDERS[step]

    def dies(*args, **kwargs):
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, name, dies)
        with pytest.raises(_Killed):
            _round_and_turn(parts)
    again = populations.Parts(tmp_path)
    with contextlib.closing(again):
        for each, state in zip(again.shared, _saved(again), strict=True):
            live_control.restore(live_control.of(each), state["overrides"])
        again.population.look()
        (line,) = population.read(str(tmp_path))
        (order,) = line["orders"]
        pair = [int(order[x].rpartition("_")[2]) for x in ("policy", "source")]
        if step != "before its line":  # then it is decided by the members' own scores
            assert pair == [_LOSER, _SOURCE]
        _turn(again)
        again.population.look()
        _turn(again)
        loser, source = (_saved(again)[number] for number in pair)
        copies = [each["population"]["copies"] for each in _saved(again)]
        assert (loser["population"]["copies"], sum(copies)) == (1, 1)
        assert loser["overrides"] == order["live"]
        _assert_copied(loser["learner"], source["learner"])


def test_a_round_that_members_complete_again_is_decided_again(parts, tmp_path):
    """The run has lost the steps of the round, and with them what came of it."""
    for loop in parts.loops:
        loop.save()
    parts.round(1, _SCORES)
    again = populations.Parts(tmp_path)
    with contextlib.closing(again):
        again.population.look()
        assert population.read(str(tmp_path)) == []
        _turn(again)
        assert [each.obeyed for each in again.block.reports()] == [0, 0, 0]
        again.round(1, _SCORES)
        _turn(again)
        assert [each.obeyed for each in again.block.reports()] == [1, 0, 0]


def test_a_copy_that_is_saved_keeps_its_round(parts, tmp_path):
    """Only the copy was saved before all processes were killed."""
    for loop in parts.loops:
        loop.save()
    parts.round(1, _SCORES)
    learner_process.obey(parts.loops)
    parts.loops[_LOSER].save()
    again = populations.Parts(tmp_path)
    with contextlib.closing(again):
        again.population.look()
        assert len(population.read(str(tmp_path))) == 1
        _turn(again)
        copies = [loop.member.state_dict()["copies"] for loop in again.loops]
        assert copies == [1, 0, 0]


def test_live_values_of_a_copy_are_those_of_its_source_times_a_factor(parts, tmp_path):
    parts.round(1, _SCORES)
    source, loser = (parts.shared[number].control for number in (_SOURCE, _LOSER))
    for name in ("learning_rate_factor", "entropy_cost"):
        ratio = loser.get(name) / source.get(name)
        low, high = getattr(parts.config.population.ranges, name)
        assert low <= loser.get(name) <= high
        assert loser.get(name) in (low, high) or ratio in (
            pytest.approx(0.8),
            pytest.approx(1.25),
        )
    lines = [json.loads(x) for x in (tmp_path / "changes.jsonl").open()]
    last = {x["name"]: x for x in lines}
    for name in ("learning_rate_factor", "entropy_cost"):
        assert last[f"member_0/{name}"]["to"] == loser.get(name)
        assert last[f"member_0/{name}"]["by"] == "population"
    assert len(lines) == 3 * 2 + 2  # the first ones, and the copy's


def test_a_finished_member_is_copied_and_copies_none(parts):
    parts.block.write_report(_LOSER, 0, 1.0, finished=True)
    parts.block.write_report(_OTHER, 1, 2.0)
    parts.block.write_report(_SOURCE, 1, 3.0)
    parts.population.look()
    assert [parts.block.order(k).number for k in range(3)] == [0, 0, 0]
    parts.block.write_report(_LOSER, 0, 5.0, finished=True)
    parts.block.write_report(_OTHER, 2, 2.0)
    parts.block.write_report(_SOURCE, 2, 3.0)
    parts.population.look()
    assert parts.block.order(_OTHER) == (2, _LOSER)
    assert parts.block.order(_LOSER).number == 0


def test_a_round_waits_for_every_member(parts):
    parts.block.write_report(_LOSER, 1, 1.0)
    parts.block.write_report(_SOURCE, 2, 3.0)
    parts.population.look()
    assert not os.path.exists(os.path.join(parts.folder, population.NAME))
    parts.block.write_report(_OTHER, 1, 2.0)
    parts.population.look()
    assert [line["round"] for line in population.read(parts.folder)] == [1]


def test_each_actor_acts_for_one_member(parts):
    for number, each in enumerate(parts.shared):
        assert len(each.rings.heads()) == 1
        (seat,) = each.topology.actors_of(number)
        assert seat.policies == (number,)
        assert each.rings.heads()[0] > 0
