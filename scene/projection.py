"""Points as cameras see them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from scene.cameras import Cameras


class Projected(NamedTuple):
    """Projection of points by one camera: x, y [N] in pixels, whole numbers at pixel centres, and z [N] in
    world units.
    """

    x: Tensor
    y: Tensor
    z: Tensor

    def pixels(self, size: int) -> Tensor:
        """The pixel [N] that each falls into, counted row by row in a size × size image; the nearest one if none."""
        column, row = (value.round().clamp(0, size - 1).long() for value in (self.x, self.y))
        return row * size + column


def project(camera: Cameras, points: Tensor) -> Projected:
    """Points [N, 3] as the one camera of a batch of one sees them."""
    (rotation,), (translation,) = camera.viewmats[:, :3, :3], camera.viewmats[:, :3, 3]
    x, y, z = rotation @ points.T + translation[:, None]
    (focal,), (principal,) = camera.focals, camera.principals
    return Projected(x / z * focal[0] + principal[0], y / z * focal[1] + principal[1], z)
