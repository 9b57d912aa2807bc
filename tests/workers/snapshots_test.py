"""Snapshots for the evaluator: at fixed agent steps, whole, the newest one."""

import torch

from impala_mp.workers import snapshots


def test_one_snapshot_per_interval():
    flat = torch.zeros(64, dtype=torch.uint8)
    store = snapshots.make_store(64)
    writer = snapshots.Writer(flat, store, interval=100)
    mine = torch.zeros(64, dtype=torch.uint8)
    reader = snapshots.Reader(store, mine)
    seen = []
    for update in range(1, 12):
        flat.fill_(update)
        writer.look(snapshots.Moment(update, 30 * update, 0.5 * update))
        moment = reader.fetch()
        if moment:
            assert set(mine.tolist()) == {moment.updates}
            seen.append(moment)
    assert [m.agent_steps for m in seen] == [120, 210, 300]
    assert seen[0] == (4, 120, 2.0)
    assert reader.fetch() is None


def test_a_resumed_learner_waits_for_the_next_interval():
    store = snapshots.make_store(64)
    writer = snapshots.Writer(torch.zeros(64, dtype=torch.uint8), store, 100)
    writer.restore(250)
    writer.look(snapshots.Moment(1, 280, 0.0))
    assert store.latest == 0
    writer.look(snapshots.Moment(2, 310, 0.0))
    assert store.latest == 1
