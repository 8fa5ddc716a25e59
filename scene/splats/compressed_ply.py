"""`.compressed.ply`: PlayCanvas's format, 16 bytes for each Gaussian, relative to the bounds of its chunk of 256."""

from __future__ import annotations

import logging
import math
import os
import re

import numpy as np
from numpy.typing import NDArray

from scene.ply import HARMONICS, noted_axes, read_elements
from scene.splats.table import Numbers, Splats, from_smallest_three, harmonics_of_colors

CHUNK = 256
WIDTHS = (11, 10, 11)
"""Bits of x, y and z of a position or a scale in a word, the first one highest."""


def decode(path: str | os.PathLike[str]) -> Splats:
    """The Gaussians of a file. Raises ValueError, one sentence, for what is none."""
    name, elements = os.fspath(path), read_elements(path)
    vertices, chunks = elements.get("vertex"), elements["chunk"]
    if vertices is None:
        raise ValueError(f"{name!r} has no element 'vertex', but the Gaussians are read from there.")
    count = len(vertices)
    if len(chunks) != math.ceil(count / CHUNK):
        raise ValueError(
            f"{name!r} has {len(chunks)} chunks for {count} Gaussians, but there must be one for each {CHUNK}."
        )
    chunk = np.arange(count) // CHUNK

    def words(key: str) -> NDArray[np.uint32]:
        return _column(name, vertices, f"packed_{key}", "u4")

    def bounds(end: str, names: tuple[str, ...]) -> Numbers:
        columns = [_column(name, chunks, f"{end}_{each}", "f4") for each in names]
        return np.stack(columns, axis=1).astype(np.float64)[chunk]

    def between(shares: Numbers, names: tuple[str, ...]) -> Numbers:
        low, high = bounds("min", names), bounds("max", names)
        with np.errstate(invalid="ignore"):
            return low + shares * (high - low)

    rotation = words("rotation")
    others = (_unpack(rotation, (10, 10, 10)) - 0.5) * math.sqrt(2)
    color = _unpack(words("color"), (8, 8, 8, 8))
    rgb = color[:, :3]
    # Files of before 2024 have colours in [0, 1], and no bounds of them.
    if "min_r" in (chunks.dtype.names or ()):
        rgb = between(rgb, ("r", "g", "b"))
    unused = sorted(set(elements) - {"chunk", "vertex", "sh"})
    if unused:
        logging.warning("%r: the elements %s are not used.", name, ", ".join(unused))
    return Splats.of_file(
        means=between(_unpack(words("position"), WIDTHS), ("x", "y", "z")),
        log_scales=between(_unpack(words("scale"), WIDTHS), ("scale_x", "scale_y", "scale_z")),
        rotations=from_smallest_three(rotation >> 30, others),
        opacities=color[:, 3],
        harmonics=np.concatenate([harmonics_of_colors(rgb), _rest(name, elements.get("sh"), count)], axis=1),
        axes=noted_axes(path),
    )


def _rest(name: str, table: np.ndarray | None, count: int) -> Numbers:
    """Harmonics [N, K-1, 3] of the element sh, if there is one: bytes channel by channel, the middles of 256 steps in [-4, 4]."""
    if table is None:
        return np.zeros((count, 0, 3))
    width = sum(re.fullmatch(r"f_rest_\d+", each) is not None for each in table.dtype.names or ())
    if width not in HARMONICS or len(table) != count:
        raise ValueError(
            f"{name!r} has {len(table)} rows of {width} f_rest properties for {count} Gaussians, "
            "but it must have a row for each, of 0, 9, 24, 45 or 72."
        )
    if HARMONICS[width] < width:
        logging.warning("%r has harmonics of degree 4, which are dropped: up to 3 are read.", name)
    columns = [_column(name, table, f"f_rest_{i}", "u1") for i in range(width)]
    steps = np.array(columns, np.float64).reshape(3, width // 3, count)[:, : HARMONICS[width] // 3]
    return (steps.transpose(2, 1, 0) - 127.5) / 32


def _column(name: str, table: np.ndarray, key: str, kind: str) -> NDArray:
    """A property as NumPy's `kind`; whole numbers must be as wide as that."""
    if key not in (table.dtype.names or ()):
        raise ValueError(f"{name!r} lacks the property {key!r}, which a compressed .ply file has.")
    found, wanted = table.dtype[key], np.dtype(kind)
    if found.hasobject or (
        wanted.kind == "u" and (found.kind not in "iu" or found.itemsize != wanted.itemsize)
    ):
        what = "lists" if found.hasobject else found.name
        raise ValueError(f"{name!r} has {what} as {key!r}, but a compressed .ply file has {wanted.name}.")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(table[key]).astype(wanted)


def _unpack(words: NDArray[np.uint32], bits: tuple[int, ...]) -> Numbers:
    """Shares [N, C] in [0, 1] of so many bits each, the first one highest, of words [N]."""
    columns, shift = [], sum(bits)
    for width in bits:
        shift -= width
        top = (1 << width) - 1
        columns.append((words >> shift & top) / top)
    return np.stack(columns, axis=1)
