"""`.spz`, version 3: Niantic's format, a tenth of the size. Bytes of each attribute together, gzipped."""

from __future__ import annotations

import gzip
import math

import numpy as np

from exporting.splats.packing import to_bytes
from scene.splats.spz import COLOR_SCALE, HEADER, MAGIC
from scene.splats.table import Splats, smallest_three

VERSION = 3
FRACTION_BITS = 12
"""Bits after the point as Niantic's own writer has them: a quarter of a thousandth of a unit."""
SIGNIFICANT_BITS = 16
"""Significant bits of the coordinates of assets too small for that."""
MAX_REACH = 2.0**22
"""Largest coordinate that 24 bits with one bit for the fraction can hold, in world units."""


def encode(splats: Splats) -> bytes:
    """The file. Raises ValueError, one sentence, for Gaussians too far out for its coordinates."""
    reach = float(np.abs(splats.means).max())
    if reach >= MAX_REACH:
        raise ValueError(
            f"a Gaussian is {reach:.3g} units out, but .spz holds coordinates up to {MAX_REACH:.3g}."
        )
    bits = fraction_bits(reach)
    fixed = np.rint(splats.means.astype(np.float64) * 2**bits).astype("<i4")
    header = HEADER.pack(MAGIC, VERSION, len(splats), splats.sh_degree, bits, 0, 0)
    sections = [
        fixed.view(np.uint8).reshape(-1, 4)[:, :3],  # 24 bits each, little endian
        to_bytes(splats.opacities * 255),
        to_bytes((splats.harmonics[:, 0] * COLOR_SCALE + 0.5) * 255),
        to_bytes((splats.log_scales + 10) * 16),
        _rotations(splats),
        to_bytes(splats.harmonics[:, 1:] * 128 + 128),
    ]
    # No time stamp: the same Gaussians give the same bytes.
    return gzip.compress(header + b"".join(section.tobytes() for section in sections), mtime=0)


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
