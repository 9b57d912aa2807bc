"""Slots and parameters as bytes: a frame with length and digest, never unpickled.

A frame is a header and a payload. The payload of a slot is its leaves one after the
other, depth first, as they are in memory or compressed by zstd. The user's numbers are
left out where the slot has none. A reader knows the layout, so a frame cannot make it
allocate or write more.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from impala_mp import nest, types

_HEADER = struct.Struct("<8sBBxxxxxxQQ16s")
_MAGIC = b"impala1\n"
_RAW, _ZSTD = 0, 1  # codecs
_DIGEST_BYTES = 16
_LEVEL = 1  # of zstd: 150 times smaller slots of Pong at 6 GB/s; more costs more
_MEASURED = 32  # slots, before `auto` decides
WORTH = 1.3  # smallest ratio at which compression pays


class Refused(ValueError):
    """The bytes are no whole frame of the layout; the text is a clause."""


class _Frame(NamedTuple):
    codec: int
    has_numbers: bool
    raw_bytes: int
    payload: memoryview


def _frame(codec: int, has_numbers: bool, raw_bytes: int, payload: Any) -> bytes:
    digest = hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()
    header = (_MAGIC, codec, has_numbers, raw_bytes, len(payload), digest)
    return _HEADER.pack(*header) + payload


def _read(data: Any) -> _Frame:
    """Returns the parts of a frame.

    Raises:
      Refused: it is truncated, too long or changed.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEADER.size:
        raise Refused(f"{len(view)} bytes are less than a header")
    magic, codec, has_numbers, raw_bytes, length, digest = _HEADER.unpack_from(view)
    if magic != _MAGIC or codec not in (_RAW, _ZSTD) or has_numbers not in (0, 1):
        raise Refused("the header is of another format")
    payload = view[_HEADER.size :]
    if len(payload) != length:
        raise Refused(f"{len(payload)} bytes are where {length} were announced")
    if hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest() != digest:
        raise Refused("the digest does not match")
    return _Frame(codec, bool(has_numbers), raw_bytes, payload)


def seal(buffer: np.ndarray) -> bytes:
    """Returns a frame of an array of uint8, uncompressed."""
    return _frame(_RAW, False, buffer.nbytes, buffer.tobytes())


def unseal(data: Any, num_bytes: int) -> np.ndarray:
    """Returns the array in a frame of `seal`, as a view.

    Raises:
      Refused: it is not whole, or has another size.
    """
    frame = _read(data)
    if frame.codec != _RAW or not frame.raw_bytes == len(frame.payload) == num_bytes:
        raise Refused(f"{frame.raw_bytes} bytes are where {num_bytes} belong")
    return np.frombuffer(frame.payload, np.uint8)


def _leaves(slot: types.Trajectory, has_numbers: bool) -> Iterator[np.ndarray]:
    """Yields the bytes of each leaf, as views."""
    if not has_numbers:
        slot = slot._replace(episode_end=slot.episode_end._replace(numbers=()))
    for leaf in nest.flatten(slot):
        yield leaf.reshape(-1).view(np.uint8)


class Packer:
    """Makes frames of slots, and measures whether compression pays."""

    def __init__(self, compression: str) -> None:
        """`compression` is none, zstd, or auto, which measures the first slots."""
        self._codec = _RAW if compression == "none" else _ZSTD
        self._to_measure = _MEASURED if compression == "auto" else 0
        self._compressor: Any = None
        if self._codec == _ZSTD:
            import zstandard  # an extra

            self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.raw_bytes = self.wire_bytes = self.num_slots = 0

    @property
    def compresses(self) -> bool:
        return self._codec == _ZSTD

    def pack(self, slot: types.Trajectory) -> bytes:
        """Returns a frame of the slot, of arrays that are contiguous each."""
        has_numbers = bool(slot.header.has_numbers[0])
        leaves = list(_leaves(slot, has_numbers))
        total = sum(leaf.nbytes for leaf in leaves)
        if self._codec == _ZSTD:
            stream = self._compressor.compressobj(size=total)
            payload = b"".join([*map(stream.compress, leaves), stream.flush()])
        else:
            payload = b"".join(leaf.data for leaf in leaves)
        packed = _frame(self._codec, has_numbers, total, payload)
        self._measure(total, len(packed))
        return packed

    def _measure(self, raw: int, wire: int) -> None:
        self.raw_bytes += raw
        self.wire_bytes += wire
        self.num_slots += 1
        measured = self.num_slots == self._to_measure
        if measured and self.raw_bytes < WORTH * self.wire_bytes:
            self._codec = _RAW


def unpack(data: Any, slot: types.Trajectory) -> None:
    """Writes the slot in a frame into `slot`, of arrays that are contiguous each.

    Raises:
      Refused: the frame is not whole or of another layout; `slot` is undefined.
    """
    frame = _read(data)
    leaves = list(_leaves(slot, frame.has_numbers))
    total = sum(leaf.nbytes for leaf in leaves)
    if frame.raw_bytes != total:
        raise Refused(f"a slot of {frame.raw_bytes} bytes is where {total} belong")
    if frame.codec == _ZSTD:
        _decompress(frame.payload, leaves)
    elif len(frame.payload) != total:
        raise Refused(f"{len(frame.payload)} bytes are where {total} belong")
    else:
        start = 0
        for leaf in leaves:
            end = start + leaf.nbytes
            leaf[:] = np.frombuffer(frame.payload[start:end], np.uint8)
            start = end
    if not (slot.header.has_numbers == frame.has_numbers).all():
        raise Refused("header and slot disagree on the user's numbers")


def _decompress(payload: memoryview, leaves: list[np.ndarray]) -> None:
    import zstandard  # an extra

    with zstandard.ZstdDecompressor().stream_reader(payload) as stream:
        try:
            for leaf in leaves:
                view = leaf.data
                while len(view):
                    count = stream.readinto(view)
                    if not count:
                        raise Refused("the slot ends early")
                    view = view[count:]
            if stream.read(1):
                raise Refused("the slot does not end")
        except zstandard.ZstdError as error:
            raise Refused(f"the slot cannot be decompressed ({error})") from error
