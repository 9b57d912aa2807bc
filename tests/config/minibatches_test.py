"""Parts of a batch that are not equal are refused, with a cure that works."""

import re

import pytest

from impala_mp import errors
from impala_mp.config import base, minibatches, validation
from tests.support import builders

_ROWS = {"algorithm": "impact", "batch_size": 6, "unroll_length": 20}
_CORE = {**_ROWS, "network.core": "gru"}


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        (_ROWS, (1, 2, 5, 40, 120)),
        (_CORE, (1, 2, 3, 6)),
        ({**_ROWS, "algorithm": "vtrace"}, (3,)),
        ({**_ROWS, "network.last_action": True}, (3,)),
        ({**_ROWS, "learner.micro_batches": 3}, (1, 8, 40)),
        ({**_CORE, "learner.micro_batches": 3}, (1, 2)),
    ],
    ids=str,
)
def test_equal_parts_are_allowed(fields, counts):
    for count in counts:
        config = builders.config(**fields, **{"learner.minibatches": count})
        validation.validate(config, 2)
        assert minibatches.num_steps(config) == count * config.learner.passes


@pytest.mark.parametrize(
    ("fields", "count", "sentence"),
    [
        (_ROWS, 7, r"minibatches \(7\) must be equal shares of the 120 transitions"),
        (_CORE, 5, r"shares of the 6 trajectories of batch_size \(6\)"),
        ({**_ROWS, "learner.micro_batches": 3}, 80, r"\(80\), of 3 micro-batches each"),
        ({**_ROWS, "algorithm": "vtrace"}, 4, "6 trajectories"),
        ({**_ROWS, "replay.ratio": 0.5}, 2, r"minibatches \(2\) must be 1 with replay"),
        ({**_ROWS, "batch_size": 0}, 2, "batch_size is auto"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_a_cure(fields, count, sentence):
    config = builders.config(**fields, **{"learner.minibatches": count})
    with pytest.raises(errors.BadInput, match=sentence) as error:
        validation.validate(config, 2)
    pattern = r"config\.(\S+?)(?:=| to a (?:divisor of )?)(\d+|number)"
    field, value = re.search(pattern, str(error.value)).groups()
    config.update_from_flattened_dict({field: 6 if value == "number" else int(value)})
    validation.validate(config, 2)


def test_each_rank_has_equal_minibatches():
    fields = {**_CORE, "learner.ranks": 2, "actors.environments": 1}
    config = builders.config(**fields, **{"learner.minibatches": 2})
    with pytest.raises(errors.BadInput, match="of the share of each rank") as error:
        validation.validate(config, 2)
    assert "3 trajectories" in str(error.value)


def test_a_separate_critic_has_no_core():
    config = builders.config(**_CORE, **{"network.critic": "separate"})
    with pytest.raises(errors.BadInput, match=r"critic=separate.*core is gru.*shared"):
        validation.validate(config, 2)


def test_a_separate_critic_is_of_a_policy():
    config = base.get_dqn_config()
    config.network.critic = "separate"
    with pytest.raises(errors.BadInput, match="network.critic"):
        validation.validate(config, 2)
