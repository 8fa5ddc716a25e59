"""Paint a texture from renders of the Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from exporting.mesh.views import Box, around
from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras
from scene.meshes.raster import cover
from scene.meshes.sight import sight
from scene.projection import project

VIEW = 512
DEPTH_VIEW = 256
"""Pixels of the views: of the Gaussians, and of the mesh, which shows what is hidden."""
GRAZING = 0.1
"""Cosine below which a view does not count."""


@torch.no_grad()
def bake(
    gaussians: Gaussians,
    box: Box,
    vertices: NDArray[np.floating],
    normals: NDArray[np.floating],
    faces: NDArray[np.integer],
    places: NDArray[np.floating],
    size: int,
    count: int,
    on_view: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """The texture [size, size, 3], sRGB, of a mesh (see `TexturedMesh`) from `count` views. `on_view` is called after each.

    A texel is the mean of what is seen at its place, over black, divided by the mean of alpha: nothing of a background
    comes in where the Gaussians have gaps. Views count by the cosine at which they see the place, so that each of their
    pixels counts alike: such a mean has the least square error over all pixels. Places that no view sees look as the nearest place that one sees.
    """
    device = gaussians.means.device
    texels = cover(places[faces] * size - 0.5, size, size)
    _, first = np.unique(texels.rows * size + texels.columns, return_index=True)
    rows, columns, face = texels.rows[first], texels.columns[first], texels.faces[first]
    weights = texels.weights[first][:, :, None]
    points = torch.from_numpy((vertices[faces[face]] * weights).sum(axis=1)).float().to(device)
    normal = torch.from_numpy((normals[faces[face]] * weights).sum(axis=1)).float().to(device)
    normal = F.normalize(normal, dim=-1)

    black = torch.zeros(3, device=device)
    cameras = around(box, count, VIEW, device)
    low = around(box, count, DEPTH_VIEW, device)
    pixel = 2 * box.radius / DEPTH_VIEW
    sums = torch.zeros(len(points), 4, device=device)
    for view in range(count):
        camera = cameras[view : view + 1]
        out = render(gaussians, camera, black)
        facing = (F.normalize(camera.positions - points, dim=-1) * normal).sum(dim=-1)
        towards = torch.nonzero(facing > GRAZING)[:, 0]
        there = points[towards]
        seen = project(camera, there)
        depth = mesh_depth(low[view : view + 1], vertices, faces).to(device).flatten()
        open_view = seen.z <= depth[project(low[view : view + 1], there).pixels(DEPTH_VIEW)] + 3 * pixel
        weight = open_view * facing[towards]
        grid = torch.stack([seen.x, seen.y], dim=-1) * (2 / (VIEW - 1)) - 1
        image = torch.cat([out.rgb, out.alpha], dim=1)
        values = F.grid_sample(image, grid[None, None], align_corners=True)[0, :, 0].T
        sums.index_add_(0, towards, weight[:, None] * values)
        on_view()
    alpha = sums[:, 3].numpy(force=True)
    color = (sums[:, :3] / sums[:, 3:].clamp_min(1e-6)).clamp(0, 1).numpy(force=True)
    known = alpha > 1e-3
    if known.any() and not known.all():
        where = points.numpy(force=True)
        color[~known] = color[known][cKDTree(where[known]).query(where[~known])[1]]
    texture = np.zeros((size, size, 3), dtype=np.float32)
    texture[rows, columns] = color
    return np.rint(_with_gutter(texture, rows, columns) * 255).astype(np.uint8)


def mesh_depth(camera: Cameras, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Tensor:
    """The depth [S, S] of the mesh that one camera sees, the nearest of a pixel and its neighbours: what lies next to an
    edge in front is taken for hidden, for the edge is blended into it. Infinite beside the mesh."""
    depth = sight(camera, vertices, faces).image(camera.width)
    return torch.from_numpy(ndimage.minimum_filter(depth, 3)).float()


def _with_gutter(
    texture: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The texture with the nearest painted texel wherever there is none."""
    empty = np.ones(texture.shape[:2], dtype=bool)
    empty[rows, columns] = False
    row, column = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return texture[row, column]
