"""Modules that memory cannot hold."""

import pytest
from torch import nn

from impala_mp import errors
from impala_mp.workers import memory_limit


def test_a_module_that_memory_cannot_hold_is_refused_before_it_is_filled(monkeypatch):
    monkeypatch.setattr(memory_limit.shared_memory, "available_bytes", lambda: 4 * 4000)
    with memory_limit.limited_by_memory():
        nn.Linear(99, 10)  # 1000 parameters
    filled = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: filled.append(self))
    with (
        pytest.raises(errors.BadInput, match="of memory to be made, and 0 MiB are"),
        memory_limit.limited_by_memory(),
    ):
        nn.Linear(101, 10)
    assert filled == []
    nn.Linear(200, 10)  # out of there, anything goes


def test_other_errors_of_a_module_stay_what_they_are():
    with (
        pytest.raises(RuntimeError, match="negative dimension"),
        memory_limit.limited_by_memory(),
    ):
        nn.Linear(-1, 10)
