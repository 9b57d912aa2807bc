"""Frames of slots: every byte of every space, and what is refused."""

import numpy as np
import pytest
import zstandard

from impala_mp import nest, specs
from impala_mp.transport import slot_wire
from tests.support import builders, spaces

_CODECS = ["none", "zstd"]


def _slot(seed, has_numbers, observation="tuple", action="dict"):
    """A slot with random bytes in each leaf."""
    overrides = {
        "environment.id": "tests.support.spaces:Spaces",
        "environment.kwargs": {"observation": observation, "action": action},
    }
    spec = builders.slot_spec(builders.config(**overrides))
    rng = np.random.default_rng(seed)

    def fill(leaf):
        data = rng.integers(0, 256, leaf.nbytes, np.uint8)
        data[rng.random(data.size) < 0.5] = 0
        return data.view(leaf.dtype).reshape(leaf.shape)

    slot = nest.map_structure(fill, spec)
    slot.header.has_numbers[:] = has_numbers
    return slot


def _empty(slot):
    return nest.map_structure(lambda leaf: np.full_like(leaf, 1), slot)


def _bytes(slot, has_numbers):
    if not has_numbers:
        slot = slot._replace(episode_end=slot.episode_end._replace(numbers=()))
    return [leaf.tobytes() for leaf in nest.flatten(slot)]


@pytest.mark.parametrize("compression", _CODECS)
@pytest.mark.parametrize("observation", spaces.OBSERVATIONS)
def test_a_slot_of_every_space_arrives_byte_for_byte(observation, compression):
    packer = slot_wire.Packer(compression)
    for seed, has_numbers in ((0, False), (1, True)):
        slot = _slot(seed, has_numbers, observation)
        arrived = _empty(slot)
        slot_wire.unpack(packer.pack(slot), arrived)
        assert _bytes(arrived, has_numbers) == _bytes(slot, has_numbers)


@pytest.mark.parametrize("compression", _CODECS)
def test_a_changed_or_truncated_frame_is_refused(compression):
    slot = _slot(2, True)
    frame = slot_wire.Packer(compression).pack(slot)
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(frame), 200):
        changed = bytearray(frame)
        changed[place] ^= 1 << int(rng.integers(8))
        if 10 <= place < 16:  # padding of the header
            continue
        with pytest.raises(slot_wire.Refused):
            slot_wire.unpack(bytes(changed), _empty(slot))
    for length in (0, 7, 40, len(frame) - 1):
        with pytest.raises(slot_wire.Refused):
            slot_wire.unpack(frame[:length], _empty(slot))
    with pytest.raises(slot_wire.Refused):
        slot_wire.unpack(frame + b"\0", _empty(slot))


def _other_frame(codec, slot, payload, total=None):
    raw = sum(map(len, _bytes(slot, True))) if total is None else total
    return slot_wire._frame(codec, True, raw, payload)


def test_a_whole_frame_of_another_size_is_refused():
    slot = _slot(4, True)
    payload = b"".join(_bytes(slot, True))
    slot_wire.unpack(_other_frame(0, slot, payload), _empty(slot))
    for wrong in (payload[:-1], payload + b"\0"):
        with pytest.raises(slot_wire.Refused):
            slot_wire.unpack(_other_frame(0, slot, wrong), _empty(slot))
    with pytest.raises(slot_wire.Refused, match="belong"):
        slot_wire.unpack(_other_frame(0, slot, payload, total=2**40), _empty(slot))


def test_a_compressed_slot_that_is_too_short_or_too_long_is_refused():
    slot = _slot(5, True)
    payload, make = b"".join(_bytes(slot, True)), zstandard.ZstdCompressor().compress
    slot_wire.unpack(_other_frame(1, slot, make(payload)), _empty(slot))
    for wrong in (make(payload[:-1]), make(payload + b"\0" * 10**6), b"not zstd"):
        with pytest.raises(slot_wire.Refused):
            slot_wire.unpack(_other_frame(1, slot, wrong), _empty(slot))


def test_parameters_arrive_and_others_are_refused():
    buffer = np.random.default_rng(6).integers(0, 256, 1000, np.uint8)
    frame = slot_wire.seal(buffer)
    assert (slot_wire.unseal(frame, 1000) == buffer).all()
    for data, size in ((frame, 999), (frame[:-1], 1000), (frame[:-1] + b"x", 1000)):
        with pytest.raises(slot_wire.Refused):
            slot_wire.unseal(data, size)


def _numbers_slot(make):
    """A slot with one large leaf, which `make` fills."""
    environment = specs.EnvironmentSpec(
        specs.array_spec((200,), np.float32), specs.DiscreteSpec(3), 1
    )
    output = specs.actor_critic_output(environment.action, 3)
    spec = specs.trajectory_spec(environment, output, (), 10, 4)
    slot = nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    observation = slot.time_step.observation
    observation[...] = make(observation.shape)
    return slot


@pytest.mark.parametrize("pays", [True, False])
def test_compression_is_kept_where_it_pays(pays):
    rng = np.random.default_rng(7)
    slot = _numbers_slot(np.zeros if pays else rng.standard_normal)
    packer = slot_wire.Packer("auto")
    for _ in range(slot_wire._MEASURED):
        assert packer.compresses
        packer.pack(slot)
    assert packer.compresses == pays
