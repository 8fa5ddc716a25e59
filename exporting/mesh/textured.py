"""Mesh with a texture: what files are written from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scene.axes import turn


@dataclass(frozen=True)
class TexturedMesh:
    """Mesh with a texture.

    vertices [V, 3] in world units, their unit normals [V, 3], places in the texture [V, 2] in [0, 1] from its
    top left; faces [F, 3], counter-clockwise from outside; texture [S, S, 3] uint8, sRGB.

    Vertices are doubled along seams of the texture; open_edges holds where the surface is not closed without
    them, as middles of edges [E, 3].
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    places: NDArray[np.float32]
    faces: NDArray[np.int64]
    texture: NDArray[np.uint8]
    open_edges: NDArray[np.float32]

    def in_axes(self, axes: str) -> TexturedMesh:
        """The mesh as a program with `axes` sees it (see `scene.axes`)."""
        rotation = turn(axes).numpy()
        vertices, normals, edges = (
            (values.astype(np.float64) @ rotation.T).astype(np.float32)
            for values in (self.vertices, self.normals, self.open_edges)
        )
        return TexturedMesh(vertices, normals, self.places, self.faces, self.texture, edges)
