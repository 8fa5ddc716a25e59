"""Pictures of a mesh, by its faces: what Gaussians are fitted to."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scene.cameras import Cameras
from scene.meshes.placed import PlacedMesh
from scene.meshes.sight import sight

SAMPLES = 2
"""Samples of a pixel, a side."""


class MeshViews(NamedTuple):
    """V views on the host: colours rgb [V, 3, H, W] times coverage, and coverage alpha [V, 1, H, W], both in [0, 1]."""

    rgb: Tensor
    alpha: Tensor

    def over(self, background: Tensor) -> Tensor:
        """Return the views [V, 3, H, W] over colours [3] or [V, 3]."""
        return self.rgb + (1 - self.alpha) * background[..., None, None]


def mesh_views(mesh: PlacedMesh, cameras: Cameras) -> MeshViews:
    """Render a mesh as it is painted, without light, both sides of each face, for cameras on the host."""
    height, width = SAMPLES * cameras.height, SAMPLES * cameras.width
    pictures = []
    for view in range(len(cameras)):
        seen = sight(cameras[[view]].resized(width, height), mesh.vertices, mesh.faces, both_sides=True)
        picture = torch.zeros(4, height * width)
        colors = torch.from_numpy(mesh.colors(seen.faces, seen.weights)).float()
        picture[:, torch.from_numpy(seen.pixels)] = F.pad(colors, (0, 1), value=1.0).T
        pictures.append(picture.view(4, height, width))
    rgb, alpha = F.avg_pool2d(torch.stack(pictures), SAMPLES).split([3, 1], dim=1)
    return MeshViews(rgb, alpha)
