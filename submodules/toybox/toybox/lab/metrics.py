"""The distance between two surfaces, the surface that cameras can see of an asset, and the speckle of its pictures."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

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


def speckle(images: Tensor) -> float:
    """Mean difference of a toy's pixels from the median of their 3 × 3 neighbourhood, in percent of the full range.

    Grains and dots of a pixel or two count; edges, shading and wrong colours hardly do. Each pixel has that of the
    channel that differs most, and the mean is over the pixels of images [V, 3, H, W] that are not white.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    neighbours = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    grains = (images - neighbours.median(dim=-1).values).abs().amax(dim=1)
    toy = (images < 0.98).any(dim=1)
    return 100 * float(grains[toy].mean()) if bool(toy.any()) else 0.0
