"""Several processes that learn: their number, and what they do not go with."""

import pytest

from impala_mp import config as config_lib, errors
from impala_mp.config import base, derived, fields, learner_processes, validation
from tests.support import builders

_POPULATION = {
    "population.size": 2,
    "population.ranges.entropy_cost": (1e-3, 1e-2),
}
_RANKS = {"learner.ranks": 2, "batch_size": 12}


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"runtime.mode": "lockstep"}, r"runtime.mode \(lockstep\) has one process"),
        (_RANKS, r"learner.ranks \(2\) learn one policy together"),
        (_POPULATION, r"population.size \(2\) has members that copy"),
    ],
)
def test_what_learns_in_one_process_is_refused(processes, overrides, text):
    overrides = {**overrides, "learner.processes": processes}
    with pytest.raises(errors.BadInput, match=text) as error:
        validation.validate(builders.config(**overrides), 2)
    assert f"learner.processes ({processes}). Set config" in str(error.value)
    validation.validate(builders.config(**{**overrides, "learner.processes": 1}), 2)


@pytest.mark.parametrize(
    ("processes", "policies", "found"), [(1, 1, 1), (0, 1, 1), (1, 3, 1), (2, 3, 2)]
)
def test_the_number_of_processes(processes, policies, found):
    config = builders.config(**{"learner.processes": processes})
    learner_processes.resolve(config, policies)
    assert config.learner.processes == found


def test_zero_is_one_a_policy():
    config = builders.config(**{"learner.processes": 0})
    learner_processes.resolve(config, 3)
    assert config.learner.processes == derived.num_learners(config) == 3


@pytest.mark.parametrize(
    ("policies", "text"), [(1, "one policy acts here"), (3, "3 policies play here")]
)
def test_more_processes_than_policies_are_refused(policies, text):
    config = builders.config(**{"learner.processes": 4})
    with pytest.raises(errors.BadInput, match=text) as error:
        learner_processes.resolve(config, policies)
    assert f"Set config.learner.processes to {policies}, or 0" in str(error.value)


def _of_devices(processes, *devices):
    config = {"learner.processes": processes}
    return {
        name: builders.config(**config, **{"learner.device": device})
        for name, device in zip("abcd", devices, strict=False)
    }


def test_policies_of_one_process_share_their_device():
    learner_processes.check_devices(_of_devices(1, "cpu", "cpu", "cpu"))
    learner_processes.check_devices(_of_devices(2, "cuda:0", "cpu", "cuda"))
    with pytest.raises(errors.BadInput, match="'a' and 'c' are learned by one process"):
        learner_processes.check_devices(_of_devices(2, "cuda:0", "cuda:1", "cuda:1"))


def test_free_cores_are_shared():
    config = builders.config(**{"learner.processes": 3, "learner.threads": 0})
    assert derived.learner_threads(config, 2 + 9) == 3
    assert derived.learner_threads(config, 2) == 1


def test_it_may_change_on_a_resume_and_is_found_by_the_word_of_other_frameworks():
    assert fields.is_operational("learner.processes")
    assert "'learner.processes'" in fields.nearest("players.learners", [*base.BY_NAME])
    assert config_lib.get_base_config().learner.processes == 1
