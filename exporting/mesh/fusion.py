"""Fuse many depth images into one signed distance on a grid: a truncated one (Curless and Levoy, 1996),
without holes.

Inside is negative. What no camera sees is inside, what one sees through is not, and the border of the grid is
outside: every surface of the field is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from exporting.mesh.views import Box, around, front_depth, size_for
from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras
from scene.meshes.sight import sight
from scene.projection import project

TRUNCATION = 4.0
"""Distance from the surface at which the field is 1 or -1, in grains (see `Box`)."""
HIDDEN = 0.05
"""Weight of a camera from which a point is hidden. A few that see through a gap must not carve into the asset, and yet
it takes but a few to see into a cup."""
SMOOTHING = 0.5
"""Standard deviation of the field's blur, in grains."""
MAX_VIEW = 512
"""Pixels of a view, at most: finer depth images would cost more and show no more."""
POINTS_AT_ONCE = 1 << 20
LEVELS = (-0.2, 0.0, 0.2, 0.4, 0.6)
"""Levels that the surface's is chosen from, and then from those half-way to its neighbours."""
LEVEL_VIEWS = 6
SMALL = 0.01
"""Share of the largest part's volume below which a part is litter."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """Field of values [X, Y, Z] in [-1, 1] at origin + spacing · (i, j, k), world units."""

    values: Values
    origin: NDArray[np.float64]
    spacing: float

    def points(self) -> Tensor:
        """Points where the values are, [X Y Z, 3] float32, in their order."""
        axes = [
            torch.from_numpy(start + self.spacing * np.arange(steps)).float()
            for start, steps in zip(self.origin, self.values.shape)
        ]
        return torch.cartesian_prod(*axes)


@torch.no_grad()
def fuse(
    gaussians: Gaussians, box: Box, resolution: int, count: int, on_view: Callable[[], None] = lambda: None
) -> Field:
    """The distance from what `count` cameras all around see, on a grid with `resolution` steps along the box's longest
    side. `on_view` is called after each camera."""
    device = gaussians.means.device
    spacing = box.longest / resolution
    shape = ((box.high - box.low) / spacing).ceil().long() + 3
    origin = (box.middle - spacing * (shape - 1) / 2).double().numpy()
    empty = Field(np.zeros(tuple(shape.tolist()), dtype=np.float32), origin, spacing)
    points = empty.points().to(device)
    truncation = TRUNCATION * box.grain
    cameras = around(box, count, size_for(box, box.grain, MAX_VIEW), device)
    sums, weights = torch.zeros(2, len(points), device=device)
    for view in range(count):
        camera = cameras[view : view + 1]
        depth = front_depth(gaussians, camera).flatten()
        for start in range(0, len(points), POINTS_AT_ONCE):
            rows = slice(start, start + POINTS_AT_ONCE)
            seen = project(camera, points[rows])
            distance = (depth[seen.pixels(camera.width)] - seen.z) / truncation
            # Beyond the surface, a camera knows less and less.
            weight = (1 + distance).clamp(HIDDEN, 1)
            sums[rows] += weight * distance.clamp(-1, 1)
            weights[rows] += weight
        on_view()
    values = (sums / weights).reshape(empty.values.shape).numpy(force=True)
    values = ndimage.gaussian_filter(values, SMOOTHING * box.grain / spacing, mode="nearest")
    closed = np.pad(values[1:-1, 1:-1, 1:-1], 1, constant_values=1.0)
    return Field(closed, origin, spacing)


@torch.no_grad()
def outline_level(field: Field, gaussians: Gaussians, box: Box) -> float:
    """The level of the field at which a mesh has the outlines of the asset, those where alpha is a half.

    Depth is where the middles of Gaussians are, but they look as large as their flanks, and the blur takes off edges.
    """
    device = gaussians.means.device
    cameras = around(box, LEVEL_VIEWS, size_for(box, box.grain / 2, MAX_VIEW), device)
    background = torch.zeros(3, device=device)
    views = [cameras[view : view + 1] for view in range(LEVEL_VIEWS)]
    truth = [render(gaussians, camera, background).alpha[0, 0].numpy(force=True) >= 0.5 for camera in views]

    def agreement(level: float) -> float:
        """Intersection over union."""
        if not (field.values < level).any():
            return 0.0
        vertices, faces = surface(field, level)
        found = [outline(camera, vertices, faces) for camera in views]
        both = sum(int((a & b).sum()) for a, b in zip(truth, found))
        return both / max(1, sum(int((a | b).sum()) for a, b in zip(truth, found)))

    best, half = max(LEVELS, key=agreement), (LEVELS[1] - LEVELS[0]) / 2
    return max((best, best - half, best + half), key=agreement)


def outline(camera: Cameras, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels [S, S] of the one camera that a closed mesh covers."""
    return np.isfinite(sight(camera, vertices, faces).image(camera.width))


def without_litter(values: Values, level: float) -> Values:
    """The field in which below `level` no small part floats beside large ones and none has a bubble inside."""
    inside = values < level
    parts, _ = ndimage.label(inside)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = sizes >= max(1, SMALL * sizes.max())
    solid = ndimage.binary_fill_holes(large[parts])
    cleaned = np.where(inside & ~solid, 2 * level - values, values)
    return np.where(~inside & solid, 2 * level - values, cleaned).astype(np.float32)


def surface(field: Field, level: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] in world units and faces [F, 3], counter-clockwise from outside, of the field's surface.

    Raises ValueError, one sentence, if there is none.
    """
    values = without_litter(field.values, level)
    if not (values < level).any():
        raise ValueError("the asset is so faint, or so thin, that no surface was found to make a mesh of.")
    vertices, faces, _, _ = marching_cubes(values, level)
    return vertices * field.spacing + field.origin, faces.astype(np.int64)
