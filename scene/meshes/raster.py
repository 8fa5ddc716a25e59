"""Find which pixels triangles cover: of a texture, where nothing is hidden, or of a view, where the nearest
is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EDGE = 1e-9
"""How far outside of a face, in pixels along a row and in weights, a pixel centre still lies on its edge."""


class Covered(NamedTuple):
    """Pairs of a pixel whose centre lies in a face, and that face: rows, columns and faces [P], weights [P,
    3] of the face's corners in the plane.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    faces: NDArray[np.intp]
    weights: NDArray[np.float64]


def cover(corners: NDArray[np.floating], height: int, width: int) -> Covered:
    """Pixels in faces with corners [F, 3, 2] (x, y), in pixels, whole numbers at pixel centres; an edge
    belongs to both of its faces.
    """
    x, y = np.moveaxis(corners.astype(np.float64), -1, 0)
    # A corner's weight is a linear function: 0 on the side between the two others, 1 at the corner.
    following, third = [1, 2, 0], [2, 0, 1]
    slope_x, slope_y = y[:, following] - y[:, third], x[:, third] - x[:, following]
    area = slope_x[:, :1] * (x[:, :1] - x[:, 1:2]) + slope_y[:, :1] * (y[:, :1] - y[:, 1:2])
    with np.errstate(divide="ignore", invalid="ignore"):
        slope_x, slope_y = slope_x / area, slope_y / area

    # Each row of pixels that a face meets, and in it the columns from the first to the last inside.
    low, high = (np.clip(some, 0, height).astype(np.intp) for some in _whole(y.min(axis=1), y.max(axis=1)))
    flat = ~(np.isfinite(slope_x) & np.isfinite(slope_y)).all(axis=1)
    faces, row = _runs(low, np.where(flat, low, high))
    slope, from_x = slope_x[faces], x[faces][:, following]
    rest = slope_y[faces] * (row[:, None] - y[faces][:, following])
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = from_x - rest / slope
    left = np.where(slope > 0, crossing, -np.inf).max(axis=1)
    right = np.where(slope < 0, crossing, np.inf).min(axis=1)
    # A side along the row has the whole of it on one hand.
    beside = ((slope == 0) & (rest < -EDGE)).any(axis=1)
    first, last = (np.clip(some, 0, width).astype(np.intp) for some in _whole(left, right))
    spans, column = _runs(first, np.where(beside, first, last))
    weights = rest[spans] + slope[spans] * (column[:, None] - from_x[spans])
    return Covered(row[spans], column, faces[spans], weights)


def _whole(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first whole number from low on, and the one after the last up to high."""
    return np.ceil(low - EDGE), np.floor(high + EDGE) + 1


def _runs(first: NDArray[np.intp], end: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (run, number) for all numbers from first up to, not including, end of each run."""
    counts = np.maximum(end - first, 0)
    runs = np.repeat(np.arange(len(first)), counts)
    return runs, np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts - first, counts)


def nearest(covered: Covered, z: NDArray[np.floating], height: int, width: int) -> NDArray[np.intp]:
    """The pair [H, W] that is nearest at each pixel, given the depth z [P] of each pair; -1 where there is none."""
    seen = np.full(height * width, -1, dtype=np.intp)
    farthest_first = np.argsort(-z, kind="stable")
    seen[(covered.rows * width + covered.columns)[farthest_first]] = farthest_first
    return seen.reshape(height, width)
