"""The learner on a GPU equals the learner on the CPU; skipped where there is none.

`bash tools/gpu_check.sh` runs these, and the benchmark, on a machine that has one.
"""

import contextlib
import types

import numpy as np
import pytest
import torch

from impala_mp import nest
from impala_mp.algorithms import base, cuda, replay, replay_correction
from impala_mp.environments import factory
from impala_mp.evaluation import diagnosis
from impala_mp.networks import agent
from impala_mp.storage import crash_file
from impala_mp.transport import trajectory_ring
from impala_mp.workers import batcher, learner, publisher
from tests.support import builders, variants

_each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["cpu", "cuda"]
)
_each_launch = pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
_IMAGES = {
    "environment.id": "ALE/Pong-v5",
    "network.torso": "nature",
    "batch_size": 12,
    "learner.micro_batches": 2,
}
_BOX = {
    "environment.id": "Pendulum-v1",
    "algorithm": "impact",
    "learner.passes": 2,
    "network.critic": "separate",
}
_ROWS = {
    "environment.id": "CartPole-v1",
    "algorithm": "impact",
    "learner.passes": 2,
    "learner.minibatches": 3,
}
_DRAWS = {
    "fractions": variants.IQN,
    "rows": _ROWS,
    "columns": {**variants.RECURRENT, "learner.minibatches": 3},
}
_QR = {**variants.IQN, **variants.POPART, "iqn.fractions": "fixed"}


def _updated(overrides, count=6, resumes_at=None, **more):
    """Flat parameters after some updates of fixed batches, and the last metrics."""
    config = builders.config(**overrides, **more)
    environment = factory.make(config.environment, 1).spec
    torch.manual_seed(0)
    policy = agent.make(config, environment)
    made = learner.Learner(config, policy)
    device = config.learner.device
    batches = [
        nest.map_structure(
            lambda x: x.to(device),
            builders.random_batch(config, environment, policy, seed),
        )
        for seed in range(2)
    ]
    live = base.live_from_config(config)
    samples = [replay_correction.all_fresh(config) for _ in batches]
    for sample in filter(None, samples):
        sample.weight[3:], sample.replayed[3:] = 0.7, 1.0
    for turn in range(count):
        if turn == resumes_at:
            saved, on_the_cpu = made.state_dict(), torch.get_rng_state()
            torch.manual_seed(1)  # of all devices
            made = learner.Learner(config, agent.make(config, environment))
            made.load_state_dict(saved)
            torch.set_rng_state(on_the_cpu)
        metrics = made.update(batches[turn % 2], live, samples[turn % 2])
    return made.parameters.trainable.cpu(), metrics.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "overrides",
    [
        _IMAGES,
        variants.RECURRENT,
        variants.GRU,
        variants.GTRXL,
        variants.REPLAYED,
        variants.IMPACT,
        _QR,
        _BOX,
    ],
    ids=["images", "lstm", "gru", "gtrxl", "replay", "impact", "qr", "box"],
)
@_each_launch
def test_updates_on_the_gpu_equal_those_on_the_cpu(overrides, graph):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    expected, _ = _updated(overrides)
    device = {"learner.device": "cuda", "learner.cuda_graph": graph}
    actual, _ = _updated(overrides, **device)
    # A ReLU whose input is all but 0 may open on one of the two alone. The weights of
    # that unit then differ: one in 512 of the Nature network's.
    flipped = 0.01 if overrides is _IMAGES else 0.0
    assert _share_apart(actual, expected) <= flipped


def _share_apart(actual, expected):
    return (~torch.isclose(actual, expected, atol=2e-4, rtol=2e-3)).double().mean()


@pytest.mark.gpu
@pytest.mark.parametrize("overrides", _DRAWS.values(), ids=_DRAWS)
def test_a_graph_draws_what_updates_without_it_draw(overrides):
    """The numbers differ from those of a CPU, whose generator is another."""
    eager, graph = (
        _updated(overrides, **{"learner.device": "cuda", "learner.cuda_graph": graph})[
            0
        ]
        for graph in (False, True)
    )
    torch.testing.assert_close(graph, eager, atol=2e-4, rtol=2e-3)


@_each_device
@pytest.mark.parametrize("overrides", _DRAWS.values(), ids=_DRAWS)
def test_a_learner_that_resumes_draws_what_it_would_have_drawn(overrides, device):
    whole, resumed = (
        _updated(overrides, resumes_at=at, **{"learner.device": device})[0]
        for at in (None, 3)
    )
    assert torch.equal(whole, resumed)


@_each_device
@pytest.mark.parametrize(
    "overrides",
    [_IMAGES, variants.RECURRENT, variants.GRU, variants.GTRXL, variants.IQN],
    ids=["images", "lstm", "gru", "gtrxl", "iqn"],
)
def test_bfloat16_is_close(overrides, device):
    precise, metrics = _updated(overrides, 1, **{"learner.device": device})
    half = {"learner.device": device, "learner.precision": "bfloat16"}
    rough, rough_metrics = _updated(overrides, 1, **half)
    assert not torch.equal(precise, rough)
    torch.testing.assert_close(rough_metrics[:4], metrics[:4], rtol=0.05, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("large", [1, cuda.LARGE], ids=["direct", "staged"])
def test_batches_on_the_gpu_are_those_of_the_rings(tmp_path, monkeypatch, large):
    monkeypatch.setattr(cuda, "LARGE", large)
    config = builders.config(**{"learner.device": "cuda"})
    parts = builders.parts(config, tmp_path)
    rings = [parts.shared.rings.ring(i) for i in range(2)]
    bell, spec = parts.shared.rings.learner_doorbells[0], parts.shared.batch
    pinned = cuda.pin(parts.shared.rings.blocks)
    made = batcher.Batcher(rings, bell, spec, "cuda", are_pinned=pinned)
    assert made._is_direct == (large == 1)
    release = trajectory_ring.TrajectoryRing.release

    def spoil(ring, count):  # as the actor would that fills the slot again
        for offset in range(count):
            ring.peek(offset).time_step.observation[:] = 77
        release(ring, count)

    monkeypatch.setattr(trajectory_ring.TrajectoryRing, "release", spoil)
    parts.training.publish()
    parts.training._publisher.flush()
    for _ in range(5):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        expected = [
            np.concatenate([ring.peek(0).time_step.observation for ring in rings], 1)
        ]
        batch = made.take()
        actual = batch.trajectory.time_step.observation.cpu().numpy()
        np.testing.assert_array_equal(actual, expected[0])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU here")
@_each_launch
def test_the_second_gpu_does_as_the_first(tmp_path, graph):
    results = []
    for device in ("cuda:0", "cuda:1"):
        settings = {"learner.device": device, "learner.cuda_graph": graph}
        config = builders.config(**variants.RECURRENT, **settings)
        with torch.cuda.device(device):
            cuda.take_device(device)
            parts = builders.parts(config, tmp_path / device / "checkpoints")
            parts.training.restore(print)
            for _ in range(8):
                _turn(parts)
            results.append(parts.training._learner.parameters.flat.cpu())
    assert torch.equal(*results)


@pytest.mark.gpu
def test_priorities_from_the_gpu_come_one_call_later():
    updates = []
    listener = types.SimpleNamespace(update=lambda *both: updates.append(both))
    made = replay.Refresher(listener)
    on_device = torch.zeros(6, device="cuda")
    for value in (1.0, 2.0, 3.0):
        on_device.fill_(value)  # the memory of a graph's result
        made.add(int(value), on_device)
    assert [(draw, found.tolist()) for draw, found in updates] == [
        (1, [1.0] * 6),
        (2, [2.0] * 6),
    ]
    made.flush()
    made.flush()
    assert [draw for draw, _ in updates] == [1, 2, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("at_once", [False, True], ids=["late", "at_once"])
def test_publication_from_the_gpu_comes_one_call_later(tmp_path, at_once):
    parts = builders.parts(builders.config(), tmp_path)
    store = parts.shared.store
    flat = torch.zeros(store.num_bytes, dtype=torch.uint8, device="cuda")
    made = publisher.Publisher(flat, store, at_once=at_once)
    into = np.empty(store.num_bytes, np.uint8)
    for value in (1, 2, 3):
        flat.fill_(value)
        made.publish()
    assert store.fetch(into) == 2 + at_once
    assert (into == 2 + at_once).all()
    made.flush()
    assert store.fetch(into) == 3
    assert (into == 3).all()


def _turn(parts, spoil=None):
    """An unroll of each actor, and an update."""
    for one in parts.actors:
        one.fetch()
        one.unroll()
    if spoil:
        spoil(parts.shared.rings.ring(1).peek(0))
    parts.training.step()


@contextlib.contextmanager
def _no_waiting():
    """What waits for all that the device has been given, raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@_each_launch
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        variants.RECURRENT,
        variants.IMPACT,
        _BOX,
        {"replay.ratio": 0.5, "actors.count": 1},
    ],
    ids=["plain", "lstm", "impact", "box", "replay"],
)
def test_an_update_leaves_the_host_free(tmp_path, overrides, graph):
    device = {"learner.device": "cuda", "learner.cuda_graph": graph}
    config = builders.config(**overrides, **device, **{"health.drift_interval": 0})
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)
    for _ in range(8):  # warm-up, and the graphs of both stagings
        _turn(parts)
    with _no_waiting():
        for _ in range(6):
            _turn(parts)
    parts.training.write_record()
    assert parts.shared.learner_record.read()[-1]["updates"] == 14


@_each_device
@_each_launch
def test_a_skipped_step_is_noticed_kept_and_repeated(tmp_path, device, graph):
    if graph and device == "cpu":
        pytest.skip("there are no graphs on a CPU")
    settings = {"learner.device": device, "learner.cuda_graph": graph}
    config = builders.config(**variants.RECURRENT, **settings)
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)

    def spoil(slot):
        slot.time_step.reward[3, 2] = np.nan

    for turn in range(8):
        _turn(parts, spoil if turn == 6 else None)
    (path,) = (tmp_path / "crashes").iterdir()
    crash = crash_file.load(str(path))
    assert crash.update == 7
    assert diagnosis.Diagnosis(crash).repeats()
    text = diagnosis.Diagnosis(crash).culprit()
    assert "time_step/reward is nan at step 3 of the trajectory of actor 1" in text


@_each_device
def test_the_lag_counts_what_is_on_its_way_to_the_store(tmp_path, device):
    """A GPU publishes one call later: actors that fetch before each unroll are late."""
    config = builders.config(**{"learner.device": device})
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)
    _turn(parts)
    parts.training.write_record()  # the first batch is of what restore published
    for _ in range(4):
        _turn(parts)
    found = parts.training.updates.lags.metrics()
    assert found["lag/mean"] == found["lag/max"] == (device == "cuda")


@pytest.mark.gpu
@_each_launch
def test_memory_of_the_gpu_stays_flat(tmp_path, graph):
    settings = {"learner.device": "cuda", "learner.cuda_graph": graph}
    more = {"health.drift_interval": 7, "learner.precision": "bfloat16"}
    config = builders.config(**variants.IMPACT, **settings, **more)
    parts = builders.parts(config, tmp_path / "checkpoints")
    parts.training.restore(print)
    for _ in range(20):
        _turn(parts)
    before = torch.cuda.memory_reserved()
    for _ in range(200):
        _turn(parts)
    assert torch.cuda.memory_reserved() == before


@_each_device
@pytest.mark.parametrize(
    "overrides", [variants.RECURRENT, variants.IQN, _QR], ids=["v", "iqn", "qr"]
)
def test_heads_are_float32_at_any_precision(overrides, device):
    """Values in bfloat16 have 8 bits: any of them would be equal to its rounding."""
    config = builders.config(**overrides, **{"learner.device": device})
    config.learner.precision = "bfloat16"
    environment = factory.make(config.environment, 1).spec
    policy = agent.make(config, environment)
    made = learner.Learner(config, policy)
    batch = builders.random_batch(config, environment, policy, 0)
    moved = nest.map_structure(lambda x: x.to(device), batch)
    output = made.unroll(moved)
    for values in (output[0], output[1]):  # logits or action values, and the baseline
        rounded = values.bfloat16().float()
        assert (values != rounded).float().mean() > 0.5
