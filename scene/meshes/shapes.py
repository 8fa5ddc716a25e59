"""What the readers of meshes make: shapes, and where each is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scene.meshes.colors import Paint


@dataclass(frozen=True)
class Shape:
    """Vertices [V, 3], float64, triangles [F, 3] of them, int64 and perhaps none, and what colours them."""

    vertices: np.ndarray
    faces: np.ndarray
    paint: Paint


Placed = tuple[Shape, np.ndarray]
"""A shape and the matrix [4, 4] that takes its vertices, as columns, to the scene's coordinates."""
NO_FACES = np.empty((0, 3), dtype=np.int64)


def fans(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons of `sizes` [P] corners, one after the other, into fans of triangles.

    Returns the triangles' corners [F, 3], counted through all polygons, and the polygon [F] of each. Polygons
    of fewer than three corners have none.
    """
    triangles = np.maximum(sizes - 2, 0)
    polygon = np.repeat(np.arange(len(sizes)), triangles)
    first = (np.cumsum(sizes) - sizes)[polygon]
    step = np.arange(len(polygon)) - (np.cumsum(triangles) - triangles)[polygon]
    return np.stack([first, first + step + 1, first + step + 2], axis=1), polygon
