"""Batches of whole slots."""

import numpy as np

from impala_mp import nest, types
from tests.support import builders


def test_batches_are_whole_slots_in_arrival_order(tmp_path):
    parts = builders.parts(builders.config(), tmp_path)
    parts.training.publish()
    made = builders.make_batcher(parts.shared)
    assert not made.ready()
    for index in (1, 1, 0):
        parts.actors[index].fetch()
        parts.actors[index].unroll()
    slots = [parts.shared.rings.ring(1).slots[k] for k in (0, 1)]
    copies = nest.map_structure(np.array, slots)
    batch = made.take()
    assert batch.header.actor.tolist() == [1] * 6
    assert batch.header.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert not made.ready()
    assert parts.shared.rings.tails().tolist() == [0, 2]
    naive = types.Trajectory(
        *(
            nest.map_structure(lambda *x, a=axis: np.concatenate(x, a), *fields)
            for axis, *fields in zip(types.BATCH_AXIS, *copies, strict=True)
        )
    )
    host = (batch.episode_end, batch.parameter_version, batch.header)
    mine = batch.trajectory._replace(
        **dict(zip(("episode_end", "parameter_version", "header"), host, strict=True))
    )
    for leaf, twin in zip(nest.flatten(mine), nest.flatten(naive), strict=True):
        np.testing.assert_array_equal(leaf, twin)
