"""The bottleneck in words."""

import pytest

from impala_mp.monitoring import (
    bottleneck,
    display,
    reporter as reporter_lib,
    run_state,
)
from tests.support import builders


def _explain(
    learner_wait, actor_wait, num_actors=4, num_cores=64, device="cuda", serving=0
):
    record = {
        "time/learner_wait": learner_wait,
        "time/actor_wait": actor_wait,
        "time/environment_step_ms": 4.1,
        "time/inference_step_ms": 0.25,
    }
    return bottleneck.explain(record, num_actors, num_cores, device, serving)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_explain(0.75, 0.0), "12 more actors would keep it busy."),
        (_explain(0.75, 0.0), "The learner waited 75 % of its time for data"),
        (_explain(0.75, 0.0), "4.1 ms of environment and 0.25 ms of inference"),
        (_explain(0.75, 0.0, num_cores=8), "busy; 3 cores are free."),
        (_explain(0.75, 0.0, num_cores=8, serving=1), "busy; 2 cores are free."),
        (_explain(0.75, 0.0, num_cores=4), "All 4 cores are taken."),
        (_explain(0.0, 0.6), "the actors waited 60 %"),
        (_explain(0.0, 0.6), "2 of 4 actors would do"),
        (_explain(0.0, 0.6, device="cpu"), "More learner.threads or a GPU"),
        (_explain(0.05, 0.1), "keep each other busy"),
    ],
)
def test_sentences(text, expected):
    assert expected in text


def test_a_wait_that_began_before_the_interval_is_no_more_than_all_of_it(tmp_path):
    shared = builders.shared(builders.config(), tmp_path)
    screen = display.Display(run_state.Facts("Catch", 1))
    reporter = reporter_lib.Reporter([shared], str(tmp_path), screen)
    for row in map(
        shared.row, shared.topology.actors
    ):  # many hours, of whatever this took
        row.set("wait_ns", 3 * 10**14)
        row.set("environment_ns", 10**14)
    split = reporter._actor_split()
    reporter.close()
    assert split["time/actor_wait"] == pytest.approx(0.75)
    assert split["time/actor_environment"] == pytest.approx(0.25)


def test_a_stall_names_the_waiting_processes():
    text = bottleneck.explain_stall(
        21.4,
        [
            ("supervisor", "running"),
            ("learner", "waiting_for_data"),
            ("actor", "starting"),
            ("actor", "starting"),
            ("actor", "waiting_for_slot"),
        ],
    )
    assert text == (
        "No update for 21 s. The learner is waiting for data;"
        " actors: 2 starting, 1 waiting for slot."
    )


def test_a_rank_without_a_batch_is_named_with_its_actors():
    record = {
        "time/learner_wait": 0.5,
        "time/actor_wait": 0.1,
        "time/environment_step_ms": 4.1,
        "time/inference_step_ms": 0.25,
        "ranks/waited_share": 0.4,
        "ranks/last": 1.0,
    }
    text = bottleneck.explain(record, 8, 16, "cpu", num_ranks=2)
    assert "Rank 1 had no batch in 40 % of the time; actors 4 to 7 fill it." in text
    assert "6 cores are free" in text
    record["hosts/seats"] = 4.0
    text = bottleneck.explain(record, 2, 16, "cpu", num_ranks=2)
    assert "the time; actor 1 and actor hosts 1, 3 fill it." in text
    record["ranks/waited_share"] = 0.05
    assert "Rank" not in bottleneck.explain(record, 8, 16, "cpu", num_ranks=2)
    stalled = [("learner", "waiting_for_ranks"), ("learner", "waiting_for_data")]
    assert (
        "The learner is waiting for ranks (rank 0), waiting for data (rank 1);"
        in bottleneck.explain_stall(21.4, [*stalled, ("actor", "starting")])
    )


def test_nothing_is_reported_before_there_are_numbers():
    assert bottleneck.explain({}, 1, 2, "cpu") == ""
    assert _explain(float("nan"), 0.0) == ""
