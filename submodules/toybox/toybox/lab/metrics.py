"""The distance between two surfaces, and the surface that cameras can see of an asset."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras

Array = NDArray[np.float64]


def chamfer_distance(a: Array, b: Array) -> float:
    """Half the sum of the mean distances from each point of a [N, 3] to its nearest in b [M, 3] and back."""
    return float(cKDTree(b).query(a)[0].mean() + cKDTree(a).query(b)[0].mean()) / 2


@torch.no_grad()
def visible_surface(gaussians: Gaussians, cameras: Cameras) -> Array:
    """World points [N, 3] on the surface that the cameras see: every pixel that is more than half covered, at its
    mean depth. What lies hidden inside an asset is no part of its shape."""
    out = render(gaussians, cameras.to(gaussians.means.device), torch.zeros(3))
    depth, alpha = out.depth[:, 0].cpu().double(), out.alpha[:, 0].cpu().double()
    view, row, column = torch.nonzero(alpha > 0.5, as_tuple=True)
    z = (depth / alpha)[view, row, column]
    pixel = torch.stack([column, row], dim=-1)
    plane = (pixel - cameras.principals[view].double()) / cameras.focals[view].double()
    seen = torch.cat([plane, torch.ones_like(z)[:, None]], dim=-1) * z[:, None]
    # x_camera = R x + t.
    rotations, translations = cameras.viewmats[:, :3, :3].double(), cameras.viewmats[:, :3, 3].double()
    return torch.einsum("nji,nj->ni", rotations[view], seen - translations[view]).numpy()
