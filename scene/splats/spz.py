"""`.spz`: Niantic's format, versions 1 to 4. Bytes of each attribute together, compressed by gzip as a whole, or in version
4 each attribute by Zstandard."""

from __future__ import annotations

import logging
import math
import struct
import zlib

import numpy as np
import zstandard
from numpy.typing import NDArray

from scene.splats.table import MAX_COUNT, Numbers, Splats, from_smallest_three
from utils.spherical_harmonics import num_coefficients

MAGIC = 0x5053474E
SIGNATURE = MAGIC.to_bytes(4, "little")
HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, count, degree of the harmonics, bits of the fraction, flags, and a byte in reserve."""
STREAMED = 4
"""First version whose attributes are streams of their own."""
STREAMS_HEADER = struct.Struct("<IIIBBBBI12x")
"""The same but for the reserve, then the number of streams, and where their table begins."""
STREAM = struct.Struct("<QQ")
"""Bytes of a stream in the file, and after it is decompressed."""
ANTIALIASED, EXTENDED = 1, 2
"""Flags."""
COLOR_SCALE = 0.15
"""Factor of the constant harmonic, in place of its 0.28: room for colours that other harmonics bring back
into range.
"""
MAX_DEGREE = 4
MAX_RATIO = 100
"""Bytes that a byte of gzip may hold, which can be 1032 of them; Gaussians have about 5."""
BLOCK = 1 << 20
"""Bytes that are inflated at once."""


def decode(name: str, content: bytes) -> Splats:
    """The Gaussians of the file `name`. Raises ValueError, one sentence, for what is none."""
    head = content if content.startswith(SIGNATURE) else _inflated(name, content, HEADER.size)
    if len(head) < HEADER.size:
        raise ValueError(f"{name!r} ends within the header of an .spz file.")
    magic, version, count, degree, bits, flags, _ = HEADER.unpack_from(head)
    if magic != MAGIC:
        raise ValueError(f"{name!r} is gzipped, but does not start as an .spz file does.")
    if not 1 <= version <= STREAMED:
        raise ValueError(
            f"{name!r} is an .spz file of version {version}, but 1 to {STREAMED} are read: have it written as "
            "version 3, or as .ply."
        )
    if degree > MAX_DEGREE:
        raise ValueError(
            f"{name!r} has harmonics of degree {degree}, but an .spz file has degree 0 to {MAX_DEGREE}."
        )
    widths = {"position": 6 if version == 1 else 9, "opacity": 1, "colour": 3, "scale": 3}
    widths |= {"rotation": 4 if version >= 3 else 3, "rest": 3 * (num_coefficients(degree) - 1)}
    size = HEADER.size + count * sum(widths.values())
    if count > MAX_COUNT or size > MAX_RATIO * len(content) + BLOCK:
        raise ValueError(
            f"{name!r} claims {count} Gaussians in {len(content)} bytes, "
            f"but it must hold what it claims and at most {MAX_COUNT}."
        )
    if version == STREAMED:
        whole = _streams(name, content, [count * width for width in widths.values()])
    else:
        whole = (content if head is content else _inflated(name, content, size))[HEADER.size :]
    if len(whole) < size - HEADER.size:
        raise ValueError(f"{name!r} claims {count} Gaussians, but ends within them.")
    if flags & ANTIALIASED:
        logging.warning(
            "%r is marked as antialiased, which is dropped: Gaussians thinner than a pixel look denser here.",
            name,
        )
    if flags & EXTENDED:
        logging.warning("%r has extensions, which are not read.", name)
    if degree == MAX_DEGREE:
        logging.warning("%r has harmonics of degree 4, which are dropped: up to 3 are read.", name)
    parts, start = {}, 0
    for key, width in widths.items():
        parts[key] = np.frombuffer(whole, np.uint8, count * width, start).reshape(count, width)
        start += count * width
    constant = (parts["colour"] / np.float32(255) - 0.5) / COLOR_SCALE
    kept = num_coefficients(min(degree, 3)) - 1
    rest = (parts["rest"].reshape(count, -1, 3)[:, :kept].astype(np.float32) - 128) / 128
    return Splats.of_file(
        means=_halves(parts["position"]) if version == 1 else _fixed(parts["position"], bits),
        log_scales=parts["scale"] / np.float32(16) - 10,
        rotations=_rotations(parts["rotation"]),
        opacities=parts["opacity"][:, 0] / np.float32(255),
        harmonics=np.concatenate([constant[:, None], rest], axis=1),
    )


def _streams(name: str, content: bytes, sizes: list[int]) -> bytes:
    """The attributes of version 4, of which those of 0 bytes have no stream, after each other.

    Raises ValueError, one sentence, for streams that are missing, damaged or not as long as that.
    """
    if len(content) < STREAMS_HEADER.size:
        raise ValueError(f"{name!r} ends within the header of an .spz file.")
    *_, number, table = STREAMS_HEADER.unpack_from(content)
    sizes = [size for size in sizes if size]
    start = table + number * STREAM.size
    if number != len(sizes) or table < STREAMS_HEADER.size or start > len(content):
        raise ValueError(
            f"{name!r} has {number} streams, but an .spz file of version 4 like it has {len(sizes)}."
        )
    whole = []
    for index, size in enumerate(sizes):
        packed, unpacked = STREAM.unpack_from(content, table + index * STREAM.size)
        if unpacked != size or start + packed > len(content):
            raise ValueError(f"{name!r} claims a stream that is longer or shorter than its Gaussians need.")
        try:
            # No more memory than that is taken, whatever the stream claims.
            with zstandard.ZstdDecompressor().stream_reader(content[start : start + packed]) as reader:
                whole.append(reader.read(size))
        except zstandard.ZstdError as error:
            raise ValueError(f"{name!r} holds a damaged stream: {error}.") from error
        start += packed
    return b"".join(whole)


def _inflated(name: str, content: bytes, size: int) -> bytes:
    """The first `size` bytes of what is gzipped, or all there are; no more memory than that is taken.

    Raises ValueError, one sentence, for what is not gzipped or damaged.
    """
    inflater, parts, rest, left = zlib.decompressobj(wbits=31), [], content, size
    try:
        while left > 0 and rest and not inflater.eof:
            parts.append(inflater.decompress(rest, min(left, BLOCK)))
            left, rest = left - len(parts[-1]), inflater.unconsumed_tail
        # The checksum comes after the last byte.
        if size > HEADER.size and not (inflater.eof or inflater.decompress(rest, 1) or inflater.eof):
            raise ValueError(f"{name!r} ends before it is whole.")
    except zlib.error as error:
        raise ValueError(f"{name!r} cannot be unzipped, as an .spz file is: {error}.") from error
    return b"".join(parts)


def _halves(parts: NDArray[np.uint8]) -> Numbers:
    """Three numbers of half precision from bytes [N, 6]."""
    return np.ascontiguousarray(parts).view("<f2").astype(np.float32)


def _fixed(parts: NDArray[np.uint8], bits: int) -> Numbers:
    """Three numbers of 24 bits, `bits` of them after the point, from bytes [N, 9]."""
    low, middle, high = parts.reshape(-1, 3, 3).astype(np.int32).transpose(2, 0, 1)
    return (((high ^ 128) - 128) * 65536 + middle * 256 + low) * 2.0**-bits


def _rotations(parts: NDArray[np.uint8]) -> Numbers:
    """Quaternions (w, x, y, z) from bytes: x, y and z [N, 3], or a place and the three others [N, 4]."""
    if parts.shape[1] == 3:
        xyz = parts / 127.5 - 1
        w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1)))
        return np.column_stack([w, xyz])
    words = np.ascontiguousarray(parts).view("<u4")[:, 0]
    # 2 bits for the place among (x, y, z, w), then for each of the others its sign and 9 bits of magnitude.
    fields = np.stack([words >> 20, words >> 10, words], axis=1) & 1023
    others = (fields & 511) / 511 * math.sqrt(0.5) * np.where(fields & 512, -1, 1)
    return from_smallest_three(words >> 30, others)[:, [3, 0, 1, 2]]
