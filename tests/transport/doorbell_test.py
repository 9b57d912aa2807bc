"""Doorbells are hints."""

from impala_mp.transport import doorbell


def test_a_doorbell_is_a_hint():
    bell = doorbell.Doorbell()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.0)  # two rings, one look
