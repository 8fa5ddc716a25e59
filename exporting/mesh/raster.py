"""Find which pixels triangles cover: of a texture, where nothing is hidden, or of a view, where the nearest
is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAIRS_AT_ONCE = 4_000_000
"""Pairs of a face and a pixel of its box that are looked at together."""


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
    corners = corners.astype(np.float64)
    low = np.clip(np.ceil(corners.min(axis=1)), 0, [width, height]).astype(np.intp)
    high = np.clip(np.floor(corners.max(axis=1)) + 1, 0, [width, height]).astype(np.intp)
    extent = np.maximum(high - low, 0)
    counts = extent.prod(axis=1)
    # Faces in groups of about so many pairs, at least one face each.
    groups = np.cumsum(counts) // PAIRS_AT_ONCE
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    found = [_pairs(corners, low, extent, faces) for faces in np.split(np.arange(len(corners)), starts[1:])]
    return Covered(
        np.concatenate([some.rows for some in found]),
        np.concatenate([some.columns for some in found]),
        np.concatenate([some.faces for some in found]),
        np.concatenate([some.weights for some in found]),
    )


def _pairs(corners: np.ndarray, low: np.ndarray, extent: np.ndarray, some: np.ndarray) -> Covered:
    """The covered pixels of some faces, each with its box: low and extent [F, 2]."""
    counts = extent[some].prod(axis=1)
    faces = np.repeat(some, counts)
    place = np.arange(len(faces)) - np.repeat(np.cumsum(counts) - counts, counts)
    down, right = np.divmod(place, extent[faces, 0])
    p = low[faces] + np.column_stack([right, down])
    a, b, c = (corners[faces, corner] for corner in range(3))
    twice_areas = np.column_stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)])
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = twice_areas / _cross(b - a, c - a)[:, None]
    inside = (weights >= -1e-9).all(axis=1)  # NaN, of a face without area, is not
    return Covered(p[inside, 1], p[inside, 0], faces[inside], weights[inside])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def nearest(covered: Covered, z: NDArray[np.floating], height: int, width: int) -> NDArray[np.intp]:
    """The pair [H, W] that is nearest at each pixel, given the depth z [P] of each pair; -1 where there is none."""
    seen = np.full(height * width, -1, dtype=np.intp)
    farthest_first = np.argsort(-z, kind="stable")
    seen[(covered.rows * width + covered.columns)[farthest_first]] = farthest_first
    return seen.reshape(height, width)
