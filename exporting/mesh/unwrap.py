"""Texture coordinates: the surface cut into charts that lie flat in a square, by xatlas."""

from __future__ import annotations

import numpy as np
import xatlas
from numpy.typing import NDArray

PADDING = 3
"""Texels between charts, so that blending neighbours, and the first mipmaps, stay in their chart."""


def unwrap(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Vertices doubled along the seams of a texture of size × size: which one each was [W], the faces [F, 3] of the new
    ones, and where they are in the texture, [W, 2] in [0, 1] from its top left."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding = size, PADDING
    atlas.generate(pack_options=packing)
    origin, corners, places = atlas[0]
    return origin.astype(np.int64), corners.astype(np.int64), places
