"""The inference server: the same trajectories and guarantees as actors on their own."""

import types

import numpy as np
import pytest
import torch

from impala_mp.algorithms import cuda
from impala_mp.config import schedules
from impala_mp.transport import inference_requests
from impala_mp.workers import inference_server
from tests.support import builders, live_changes, served as served_lib


@pytest.fixture
def now(monkeypatch):
    """The server's clock: a list of one number."""
    clock = [0.0]
    fake = types.SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr(inference_server, "time", fake)
    return clock


def _served_seat(tmp_path):
    """A server that has its first parameters, and actor 0's first seat."""
    served = served_lib.Served(tmp_path)
    served.training.publish()
    served.server.refresh()
    return served, served.shared.inference.seats(0)[0]


def _drift(served, rounds):
    """Largest difference between recorded logits and the learner's at that version."""
    made, worst, ends = builders.make_batcher(served.shared), 0.0, set()
    learner = served.training._learner
    for _ in range(rounds):
        with served.serving():
            for one in served.actors:
                assert one.unroll()
        batch = made.take()
        step, output = batch.trajectory.time_step, batch.trajectory.agent_output
        with torch.no_grad():
            mine = learner.agent.unroll(
                step, output.action, batch.trajectory.core_state
            )
        difference = (mine.policy_logits[:-1] - output.policy_logits).abs().max()
        worst = max(worst, float(difference))
        ends |= set(step.step_type.unique().tolist())
    return worst, ends


@pytest.mark.parametrize("large", [1, cuda.LARGE], ids=["direct", "joined"])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["cpu", "cuda"]
)
def test_learner_logits_equal_the_servers_across_episodes(
    tmp_path, monkeypatch, large, device
):
    monkeypatch.setattr(cuda, "LARGE", large)  # of rows that go to the device singly
    served = served_lib.Served(tmp_path, **{"inference.device": device})
    served.policy._is_direct = large == 1
    served.training.publish()
    worst, ends = _drift(served, 8)
    assert ends == {0, 1, 2}
    assert worst < (1e-5 if device == "cpu" else 1e-3)


def test_a_server_acts_in_the_precision_of_inference(tmp_path):
    served = served_lib.Served(tmp_path, **{"inference.precision": "bfloat16"})
    served.training.publish()
    worst, _ = _drift(served, 3)
    assert 1e-5 < worst < 0.1


def test_the_drift_test_sees_halves_that_are_mixed_up(tmp_path):
    served = served_lib.Served(tmp_path)
    served.training.publish()
    clients = served.policy._clients
    states = [c.state for c in clients]
    _drift(served, 1)
    clients[0].state, clients[1].state = clients[1].state, states[0]
    begin = served.policy._begin

    def late(work):  # takes the state of the row before last
        before = work.client.state
        done = begin(work)
        if work.request.row == 2:
            work.client.state = tuple(torch.zeros_like(leaf) for leaf in before)
        return done

    served.policy._begin = late
    worst, _ = _drift(served, 3)
    assert worst > 1e-4


def test_an_unroll_has_one_version_despite_publications(tmp_path):
    served = served_lib.Served(tmp_path)
    served.training.publish()
    made = builders.make_batcher(served.shared)
    step = served.actors[0]._environments[1].step
    newest = [1]

    def step_and_publish(action):
        served.training.publish()
        newest[0] += 1
        return step(action)

    served.actors[0]._environments[1].step = step_and_publish
    seen = set()
    for _ in range(6):
        with served.serving():
            for one in served.actors:
                one.unroll()
        versions = made.take().parameter_version
        assert (versions == versions[0]).all()  # of all rows
        assert (versions[:, :2] == versions[0, 0]).all()
        assert (versions > 0).all()
        seen |= set(versions[0].tolist())
    assert max(seen) > newest[0] - 10  # newer parameters do arrive
    assert len(seen) > 3


def test_a_version_that_changes_within_an_unroll_shows(tmp_path):
    """Forged: the server forgets which policy an unroll began with."""
    served = served_lib.Served(tmp_path)
    served.training.publish()
    begin = served.policy._begin

    def forgetful(work):
        if work.client is served.policy._clients[1] and work.request.row == 3:
            served.training.publish()
            served.policy._older.fetch()
            work.client.policy = served.policy._older
            work.client.version = 2
        return begin(work)

    served.policy._begin = forgetful
    with served.serving():
        assert served.actors[0].unroll()
    versions = served.shared.rings.ring(0).peek(0).parameter_version
    assert versions[:, :2].tolist() == [[1, 1]] * 5
    assert versions[:, 2:].tolist() == [[1, 1]] * 3 + [[2, 2]] * 2


def test_a_new_server_starts_unrolls_over(tmp_path):
    served = served_lib.Served(tmp_path)
    served.training.publish()
    one, killed = served.actors[0], []
    step = one._environments[0].step

    def step_and_replace(action):
        if not killed:
            killed.append(served.server)
            served.server = served.start_server()
        return step(action)

    one._environments[0].step = step_and_replace
    with served.serving():
        assert one.unroll() is False
        assert served.shared.rings.ring(0).num_committed() == 0
        assert one.unroll() is True
    assert served.shared.rings.ring(0).num_committed() == 1


def test_a_new_incarnation_of_an_actor_is_not_answered_for_the_old_one(tmp_path):
    served = served_lib.Served(tmp_path)
    served.training.publish()
    with served.serving():
        assert served.actors[0].unroll()
    seat = served.shared.inference.seats(0)[0]
    seat.request(1, 3)  # the row of an actor that has died
    fresh = served.start_actor(0, 1)
    served.server.serve()
    assert seat.answer() == inference_requests.START_OVER
    with served.serving():
        assert fresh.unroll()


def test_a_dead_actor_does_not_hold_the_parameters_back(tmp_path):
    served = served_lib.Served(tmp_path)
    served.training.publish()
    served.server.refresh()
    for seat in served.shared.inference.seats(0):
        seat.request(0, 0)
    served.server.serve()  # in an unroll with version 1
    for version in (2, 3):
        served.training.publish()
        served.server.refresh()
        assert served.policy._newer.version == 2
        del version
    served.rows[0].beat(0)  # the supervisor saw it die
    served.server.refresh()
    assert served.policy._newer.version == 3


def test_an_actor_that_was_taken_for_dead_starts_over(tmp_path):
    """Its policy was replaced: it must not go on with another one."""
    served, seat = _served_seat(tmp_path)
    seat.request(0, 0)
    served.server.serve()
    assert seat.answer() == 1
    served.rows[0].beat(0)  # as an actor's row reads until its first heartbeat
    for _ in range(2):
        served.training.publish()
        served.server.refresh()
    served.rows[0].beat(2)
    seat.request(0, 1)
    served.server.serve()
    assert seat.answer() == inference_requests.START_OVER


def test_an_actor_that_hangs_does_not_hold_the_parameters_back(tmp_path, now):
    """Nor is one that is slow made to start over for ever: it is given more time."""
    served, seat = _served_seat(tmp_path)

    def takes_two_rows(secs):
        """What it is answered at the second, and which version there is by then."""
        seat.request(0, 0)
        served.server.serve()
        for _ in range(2):  # the first lies beside the version in use
            served.training.publish()
            served.server.refresh()
        now[0] += secs
        served.server.refresh()
        newest = served.policy._newer.version
        seat.request(0, 1)
        served.server.refresh()
        served.server.serve()
        return seat.answer(), newest == served.shared.store.latest

    assert takes_two_rows(0.9) == (1, False)
    now[0] += 100.0  # no row of an unroll was asked for
    assert takes_two_rows(4.5) == (2, False)
    start_over = inference_requests.START_OVER
    assert takes_two_rows(30.0) == (start_over, True)
    answer, caught_up = takes_two_rows(30.0)
    assert answer > 0
    assert not caught_up
    served.rows[0].set("incarnation", 1)  # another one, of which nothing is known
    assert takes_two_rows(30.0) == (start_over, True)


def test_the_patience_after_one_slow_row_fades(tmp_path, now):
    served, _ = _served_seat(tmp_path)
    client = served.policy._clients[0]
    client.begin(served.policy._newer, 0)
    for secs in (50.0, *[0.1] * 1000):
        client.answered_at = now[0]
        now[0] += secs
        assert client.goes_on(0)
        assert client.longest_secs > 0.999 * secs
    assert client.longest_secs < 0.2


def test_an_actor_that_waits_for_the_server_is_not_late(tmp_path, now):
    served, seat = _served_seat(tmp_path)
    seat.request(0, 0)
    served.server.serve()
    seat.request(0, 1)
    for _ in range(2):
        now[0] += 100.0  # the server was suspended
        served.training.publish()
        served.server.refresh()
    served.server.serve()
    assert seat.answer() == 1


@pytest.mark.parametrize("words", [(0, 0), (1, 5)])
def test_a_request_that_is_being_changed_is_left_for_later(words):
    block = inference_requests.InferenceBlock(1)
    seat = block.seats(0)[0]
    seat.request(*words)
    assert seat.pending() == (1, *words)
    assert seat.answer() == 0
    barriers = []

    def barrier():
        barriers.append(None)
        if len(barriers) == 2:
            seat._words[0] += 1  # the actor's next incarnation

    seat._barrier = barrier
    assert seat.pending() is None
    seat._barrier = lambda: None
    seat.reply(seat.pending(), 7)
    assert seat.answer() == 7
    assert np.isscalar(seat.answer())


@pytest.mark.parametrize(
    ("alpha", "over"), [(0.0, "actors"), (3.0, "actors"), (3.0, "environments")]
)
def test_the_server_knows_the_rungs_and_the_temperature(tmp_path, alpha, over):
    overrides = {"actors.epsilon": 0.5, "actors.epsilon_ladder": alpha}
    overrides["actors.ladder_over"] = over
    served = served_lib.Served(tmp_path, **overrides)
    served.training.publish()
    served.shared.control.override({"temperature": 0.25})
    with served.serving():
        for one in served.actors:
            one.unroll()
    batch = builders.make_batcher(served.shared).take()
    acted = live_changes.unrolled(served.training._learner.agent, batch.trajectory)
    logits = acted.policy_logits[:-1].double().numpy()
    recorded = batch.trajectory.agent_output.policy_logits
    for column, index in enumerate(batch.header.actor):
        rungs = schedules.rungs(served.shared.config.actors, 2)[index]
        epsilon = 0.5 ** rungs[column % len(rungs)]
        expected = live_changes.log_mixture(logits[:, column], epsilon, 0.25)
        np.testing.assert_allclose(recorded[:, column], expected, rtol=1e-5, atol=1e-5)
