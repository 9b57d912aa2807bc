"""Short texts for numbers."""

import math

import pytest

from impala_mp.monitoring import formats


@pytest.mark.parametrize(
    ("value", "number", "short", "small"),
    [
        (0.0, "0.00", "0", "0"),
        (1e-6, "1e-6", "1e-6", "1.0e-6"),
        (-0.0042, "-0.0042", "-0.0042", "-0.0042"),
        (0.41, "0.41", "0.41", "0.41"),
        (1.444, "1.44", "1.44", "1.4"),
        (24.94, "24.94", "24.9", "24.9"),
        (999.96, "999.96", "1k", "1k"),
        (7912.0, "7,912", "7.91k", "7.91k"),
        (1e6, "1,000,000", "1M", "1M"),
        (-1.5e9, "-1.5e9", "-1.5G", "-1.5e9"),
        (1e18, "1e18", "1e+06T", "1e+06T"),
        (None, "?", "?", "?"),
        (math.nan, "?", "?", "?"),
        (-math.inf, "?", "?", "?"),
    ],
)
def test_numbers(value, number, short, small):
    assert formats.number(value, "?") == number
    assert formats.short(value, "?") == short
    if value is None or value >= 0 or value > -10:
        assert formats.small(value, "?") == small


@pytest.mark.parametrize(
    ("secs", "duration", "age"),
    [
        (-3.0, "0:00", "0 s"),
        (0.0, "0:00", "0 s"),
        (59.4, "0:59", "59 s"),
        (94.0, "1:34", "1 min"),
        (3723.0, "1:02:03", "1 h"),
        (273845.0, "3 d 4:04:05", "3 d"),
        (None, "?", "?"),
        (math.nan, "?", "?"),
    ],
)
def test_times(secs, duration, age):
    assert formats.duration(secs, "?") == duration
    assert formats.age(secs, "?") == age


def test_shares():
    assert formats.percent(0.163) == "16 %"
    assert formats.percent(None) == ""
