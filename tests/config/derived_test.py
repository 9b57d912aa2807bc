"""Numbers that follow from a config."""

import pytest

from impala_mp import errors
from impala_mp.config import derived, validation
from tests.support import builders

_RECURRENT_REPLAY = {"replay.ratio": 0.5, "network.core": "lstm"}


@pytest.mark.parametrize(
    "fields",
    [
        {"replay.ratio": 0.5},
        {"replay.ratio": 0.5, "network.last_action": True},  # the state is exact
        {**_RECURRENT_REPLAY, "replay.burn_in": True},
        {**_RECURRENT_REPLAY, "network.core": "gtrxl", "replay.burn_in": True},
        {"replay.ratio": 1 / 3, "batch_size": 48},
        {"replay.ratio": 0.4, "actors.environments": 0},
        {"replay.ratio": 0.75, "batch_size": 64, "actors.slots": 1, "actors.count": 1},
    ],
)
def test_replay_with(fields):
    validation.validate(builders.impala_config(**fields), num_cores=2)


def test_a_replay_smaller_than_a_batch_is_refused():
    config = builders.impala_config(**{"replay.memory_mib": 1.0, "batch_size": 32})
    assert derived.replay_capacity(config, 2**20 // 32) == 32
    sentence = r"memory_mib \(1.0\) holds 31 .* a batch \(32\). Set .* at least 1.1"
    with pytest.raises(errors.BadInput, match=sentence):
        derived.replay_capacity(config, 2**20 // 32 + 1)
    config.actors.environments = 64
    with pytest.raises(errors.BadInput, match=r"slot of an actor \(64\).*least 2.1"):
        derived.replay_capacity(config, 2**20 // 32)


def test_threads_of_the_learner():
    assert (
        derived.learner_threads(builders.impala_config(**{"actors.count": 2}), 8) == 6
    )
    assert (
        derived.learner_threads(builders.impala_config(**{"actors.count": 2}), 2) == 1
    )
    assert (
        derived.learner_threads(builders.impala_config(**{"learner.threads": 3}), 2)
        == 3
    )
    served = {"actors.count": 2, "inference.mode": "server", "inference.threads": 3}
    assert derived.learner_threads(builders.impala_config(**served), 8) == 3
    assert derived.learner_threads(builders.impala_config(**served), 4) == 1
    none = builders.impala_config(**{"actors.count": 0})
    assert derived.num_actors(none.actors, 7) == 7
