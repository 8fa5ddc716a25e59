"""What a view shows of a mesh: the nearest face of each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scene.cameras import Cameras
from scene.meshes.raster import cover, nearest
from scene.projection import project


class Sight(NamedTuple):
    """Pixels that a mesh covers.

    pixels [P], counted row by row and rising; the face [P] that each shows; weights [P, 3] of the face's corners in
    space; z [P] in world units.
    """

    pixels: NDArray[np.intp]
    faces: NDArray[np.intp]
    weights: NDArray[np.float64]
    z: NDArray[np.float64]

    def image(self, size: int) -> NDArray[np.float64]:
        """The depth [size, size], infinite beside the mesh."""
        depth = np.full(size * size, np.inf)
        depth[self.pixels] = self.z
        return depth.reshape(size, size)


def sight(
    camera: Cameras, vertices: NDArray[np.floating], faces: NDArray[np.integer], *, both_sides: bool = False
) -> Sight:
    """Pixels of a mesh as the one camera sees it: of a closed one, whose back faces are hidden by others, or with
    `both_sides` of any. Faces that reach behind the camera are left out.
    """
    seen = project(camera, torch.from_numpy(vertices).float().to(camera.viewmats.device))
    x, y, z = (values.double().numpy(force=True) for values in seen)
    corners = np.stack([x, y], axis=-1)[faces]
    ahead = (z[faces] > 0).all(axis=1)
    front = np.flatnonzero(ahead if both_sides else ahead & faces_camera(corners))
    height, width = camera.height, camera.width
    found = cover(corners[front], height, width)
    # 1/z is linear on the screen, and so is anything linear in space divided by z (Blinn, 1992).
    over_z = found.weights / z[faces[front[found.faces]]]
    inverse = over_z.sum(axis=1)
    first = nearest(found, 1 / inverse, height, width).ravel()
    pixels = np.flatnonzero(first >= 0)
    chosen = first[pixels]
    weights = over_z[chosen] / inverse[chosen][:, None]
    return Sight(pixels, front[found.faces[chosen]], weights, 1 / inverse[chosen])


def faces_camera(corners: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether each face [F] turns its outside to the camera that sees its corners [F, 3, 2] (x, y) in pixels."""
    a, b, c = np.moveaxis(corners, 1, 0)
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    # y is down in images, so what goes counter-clockwise in space goes clockwise in them.
    return np.asarray(ux * vy < uy * vx)
