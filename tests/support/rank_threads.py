"""Learner ranks as threads of this process, with real groups on loopback."""

import threading

from impala_mp.transport import control_block, ranks


def run(size, function, device="cpu"):
    """Calls `function(group)` for each rank, all at once; returns results by rank."""
    meeting, control = ranks.Rendezvous(), control_block.ControlBlock(size)
    results, failures = [None] * size, []

    def one(rank):
        try:
            row = control.row(rank)
            group = ranks.Group(meeting.port, "0/0", rank, size, row, device)
            results[rank] = function(group)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads), "a rank waits for ever"
    assert not failures
    return results
