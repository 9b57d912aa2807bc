"""States of actor hosts, as the receiver publishes them."""

import pytest

from impala_mp.transport import host_board

_STATE = {"seat": 3, "node": "a-node", "state": "running", "wire_mb_per_sec": 1.25}


@pytest.mark.parametrize("length", [0, 10, 900, 100_000])
@pytest.mark.parametrize("letter", ["x", "é", "실", "😀", '"', "\udc80"])
def test_a_reason_in_any_language_is_cut_until_it_fits(letter, length):
    board = host_board.HostBoard(2)
    reason = letter * length
    states = [_STATE, {**_STATE, "reason": reason}]
    board.publish(states)
    first, second = board.read()
    assert first == states[0]
    kept = second.pop("reason")
    assert second == _STATE
    assert reason.startswith(kept)
    assert len(kept) == length or len(host_board._encoded(states[1])) > 1000
    board.close()
