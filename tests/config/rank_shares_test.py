"""What several learner ranks cannot do is refused, with a cure that works."""

import re

import pytest

from impala_mp import errors
from impala_mp.config import rank_shares, validation
from tests.support import builders

_TWO = {"learner.ranks": 2, "batch_size": 12}


def _refusal(**overrides):
    with pytest.raises(errors.BadInput) as error:
        validation.validate(builders.config(**{**_TWO, **overrides}), 2)
    return str(error.value)


def test_two_ranks_are_allowed():
    validation.validate(builders.config(**_TWO), 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runtime.mode", "lockstep"),
        ("replay.save", True),
        ("replay.reuse", 2.0),
        ("actors.policy_delay", 1),
        ("learner.device", "cuda:1"),
        ("actors.count", 0),
        ("batch_size", 0),
        ("learner.micro_batches", 0),
    ],
)
def test_what_ranks_cannot_do_is_refused(field, value):
    with pytest.raises(errors.BadInput) as error:
        rank_shares.check(builders.config(**{**_TWO, field: value}))
    text = str(error.value)
    assert text.startswith(field)
    assert "learner.ranks" in text
    assert "Set config." in text


@pytest.mark.parametrize(
    "overrides",
    [
        {"actors.count": 3},
        {"batch_size": 9},
        {"batch_size": 18, "actors.environments": 6},
        {"batch_size": 12, "replay.ratio": 0.25},
        {"learner.micro_batches": 4},
    ],
    ids=str,
)
def test_shares_that_are_not_equal_are_refused_with_a_cure_that_works(overrides):
    text = _refusal(**overrides)
    cures = re.findall(r"config\.(\S+) to (?:a divisor of )?([\d.]*\d)", text)
    assert cures
    fixed = {**_TWO, **overrides}
    for name, value in cures:
        fixed[name] = float(value) if "ratio" in name else int(value)
    validation.validate(builders.config(**fixed), 2)


def test_several_policies_have_one_rank():
    config = builders.config(**_TWO)
    rank_shares.check_policies(config, 1)
    with pytest.raises(errors.BadInput, match="learner.ranks"):
        rank_shares.check_policies(config, 2)
