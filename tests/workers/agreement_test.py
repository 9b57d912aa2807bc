"""Agreement of ranks: all go or none, and unlike ranks are named."""

import pytest
import torch

from impala_mp.algorithms import base
from impala_mp.workers import agreement
from tests.support import rank_threads


def _words(**changes):
    zeros = dict.fromkeys(agreement.Words._fields, 0.0)
    live = (0.0,) * len(base.Live._fields)
    return agreement.Words(**{**zeros, "live": live, **changes})


def _agreed(*ranks):
    return agreement.Agreed(tuple(ranks))


def test_an_update_is_made_by_all_or_by_none():
    ready = _words(is_ready=1.0)
    assert _agreed(ready, ready).goes
    assert not _agreed(ready, _words()).goes
    assert not _agreed(_words(), ready).goes


def test_a_stop_of_one_is_the_stop_of_all_and_the_end_is_that_of_rank_0():
    assert _agreed(_words(), _words(is_stopping=1.0)).stops
    assert not _agreed(_words(), _words(is_over=1.0)).is_over
    assert _agreed(_words(is_over=1.0), _words()).is_over


@pytest.mark.parametrize("name", ["updates", "checksum"])
def test_a_rank_that_is_not_like_the_first_is_named(name):
    alike, other = _words(**{name: 7.0}), _words(**{name: 8.0})
    _agreed(alike, alike).check()
    with pytest.raises(agreement.Mismatch, match="rank 2"):
        _agreed(alike, alike, other).check()


def test_the_words_of_all_ranks_are_the_same_everywhere_and_exact():
    live = tuple(0.1 * number for number in range(len(base.Live._fields)))
    large = float(2**48 - 1)

    def function(group):
        own = _words(learned=large, checksum=large, in_flight=group.rank)
        if group.rank == 0:
            own = own._replace(live=live)
        return agreement.agree(group, own)

    first, second = rank_threads.run(2, function)
    assert first == second
    assert first.live == base.Live(*live)
    assert [each.checksum for each in first.ranks] == [large, large]
    assert first.counts()["learned"] == 2 * (2**48 - 1)
    assert first.counts()["in_flight"] == 1


def test_one_changed_bit_changes_the_checksum():
    flat = torch.arange(640, dtype=torch.int64).view(torch.uint8)[:640].clone()
    before = agreement.checksum(flat, 20)
    flat[333] ^= 1
    assert agreement.checksum(flat, 20) != before
    assert agreement.checksum(flat, 21) == 0.0
