"""`.compressed.ply`: PlayCanvas's format, 16 bytes for each Gaussian, relative to the bounds of its chunk of 256."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from plyfile import PlyData, PlyElement

from exporting.splats.packing import morton_order, to_bytes
from scene.ply import axes_comments
from scene.splats.compressed_ply import CHUNK, WIDTHS
from scene.splats.table import Floats, Splats, smallest_three

MAX_LOG_SCALE = 20.0
Words = np.ndarray


def encode(splats: Splats) -> bytes:
    """The file, in Morton's order, so that chunks are small."""
    splats = splats.rows(morton_order(splats.means))
    position, position_bounds = _in_chunks(splats.means)
    scale, scale_bounds = _in_chunks(np.clip(splats.log_scales, -MAX_LOG_SCALE, MAX_LOG_SCALE))
    color, color_bounds = _in_chunks(splats.colors)
    largest, others = smallest_three(splats.rotations)
    vertices = {
        "packed_position": _pack(position, WIDTHS),
        "packed_rotation": (largest.astype(np.uint32) << 30) | _pack(others / math.sqrt(2) + 0.5, (10,) * 3),
        "packed_scale": _pack(scale, WIDTHS),
        "packed_color": _pack(np.column_stack([color, splats.opacities]), (8,) * 4),
    }
    # The least, then the greatest corner, of each in this order.
    chunks = {
        f"{end}{infix}{axis}": bounds[:, which, index]
        for infix, bounds, names in (
            ("_", position_bounds, "xyz"),
            ("_scale_", scale_bounds, "xyz"),
            ("_", color_bounds, "rgb"),
        )
        for which, end in enumerate(("min", "max"))
        for index, axis in enumerate(names)
    }
    elements = [
        _element("chunk", chunks, "<f4"),
        _element("vertex", vertices, "<u4", axes_comments(splats.axes)),
    ]
    if splats.sh_degree > 0:
        # Channel by channel, as in Inria's files; readers take the middle of each of 256 steps in [-4, 4].
        rest = splats.harmonics[:, 1:].transpose(0, 2, 1).reshape(len(splats), -1)
        steps = to_bytes((rest / 8 + 0.5) * 256 - 0.5)
        elements.append(_element("sh", {f"f_rest_{i}": column for i, column in enumerate(steps.T)}, "u1"))
    file = io.BytesIO()
    PlyData(elements, text=False, byte_order="<").write(file)
    return file.getvalue()


def _in_chunks(values: Floats) -> tuple[Floats, Floats]:
    """Values [N, 3] as shares of the way from the least to the greatest of their chunk, [N, 3], and these two, [chunks, 2, 3]."""
    starts = np.arange(0, len(values), CHUNK)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    chunk = np.arange(len(values)) // CHUNK
    extent = np.maximum(high - low, 1e-30)
    return (values - low[chunk]) / extent[chunk], np.stack([low, high], axis=1)


def _pack(shares: Floats, bits: tuple[int, ...]) -> Words:
    """Shares [N, C] in [0, 1] as whole numbers of so many bits, the first one highest, in one word each, [N]."""
    word = np.zeros(len(shares), dtype=np.uint32)
    for share, width in zip(shares.T, bits):
        top = (1 << width) - 1
        word = (word << width) | np.clip(np.rint(share * top), 0, top).astype(np.uint32)
    return word


def _element(
    name: str, columns: dict[str, np.ndarray], kind: str, comments: Sequence[str] = ()
) -> PlyElement:
    rows = np.empty(len(next(iter(columns.values()))), dtype=[(column, kind) for column in columns])
    for column, values in columns.items():
        rows[column] = values
    return PlyElement.describe(rows, name, comments=list(comments))
