"""`.spz`, versions 3 and 4: Niantic's format, a tenth of the size. Bytes of each attribute together, compressed by gzip as
a whole, or each attribute by Zstandard."""

from __future__ import annotations

import gzip
import math

import numpy as np
import zstandard

from exporting.splats.packing import to_bytes
from scene.splats.spz import COLOR_SCALE, HEADER, MAGIC, STREAM, STREAMED, STREAMS_HEADER
from scene.splats.table import Splats, smallest_three

VERSIONS = (3, STREAMED)
ZSTANDARD_LEVEL = 12
"""Level of Niantic's own writer."""
FRACTION_BITS = 12
"""Bits after the point as Niantic's own writer has them: a quarter of a thousandth of a unit."""
SIGNIFICANT_BITS = 16
"""Significant bits of the coordinates of assets too small for that."""
MAX_REACH = 2.0**22
"""Largest coordinate that 24 bits with one bit for the fraction can hold, in world units."""


def encode(splats: Splats, version: int = 3) -> bytes:
    """The file, of version 3 or 4. Raises ValueError, one sentence, for Gaussians too far out for its coordinates."""
    reach = float(np.abs(splats.means).max())
    if reach >= MAX_REACH:
        raise ValueError(
            f"a Gaussian is {reach:.3g} units out, but .spz holds coordinates up to {MAX_REACH:.3g}."
        )
    bits = fraction_bits(reach)
    fixed = np.rint(splats.means.astype(np.float64) * 2**bits).astype("<i4")
    sections = [
        fixed.view(np.uint8).reshape(-1, 4)[:, :3],  # 24 bits each, little endian
        to_bytes(splats.opacities * 255),
        to_bytes((splats.harmonics[:, 0] * COLOR_SCALE + 0.5) * 255),
        to_bytes((splats.log_scales + 10) * 16),
        _rotations(splats),
        to_bytes(splats.harmonics[:, 1:] * 128 + 128),
    ]
    numbers = (MAGIC, version, len(splats), splats.sh_degree, bits, 0)
    if version == STREAMED:
        streams = [section.tobytes() for section in sections if section.size]
        packed = [zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL).compress(stream) for stream in streams]
        table = b"".join(STREAM.pack(len(small), len(large)) for small, large in zip(packed, streams))
        # Their table follows the header at once: there are no extensions.
        return STREAMS_HEADER.pack(*numbers, len(streams), STREAMS_HEADER.size) + table + b"".join(packed)
    # No time stamp: the same Gaussians give the same bytes.
    whole = HEADER.pack(*numbers, 0) + b"".join(section.tobytes() for section in sections)
    return gzip.compress(whole, mtime=0)


def fraction_bits(reach: float) -> int:
    """Bits after the point for coordinates up to `reach`."""
    whole = math.floor(math.log2(reach)) + 1 if reach > 0 else 0
    return min(max(FRACTION_BITS, SIGNIFICANT_BITS - whole), 23 - whole, 23)


def _rotations(splats: Splats) -> np.ndarray:
    """Rotations as 32 bits [N].

    2 bits are for the place of the largest of (x, y, z, w), then come for each of the others its sign and 9
    bits of its magnitude in units of √½.
    """
    largest, others = smallest_three(splats.rotations[:, [1, 2, 3, 0]])
    packed = largest.astype(np.uint32)
    for value in others.T:
        magnitude = np.minimum(np.rint(np.abs(value) * math.sqrt(2) * 511), 511).astype(np.uint32)
        packed = (packed << 10) | ((value < 0).astype(np.uint32) << 9) | magnitude
    return packed.astype("<u4")
