"""Distances between sets: the Fréchet distance of features, the Chamfer distance of surfaces."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras

Array = NDArray[np.float64]


def frechet_distance(a: Array, b: Array) -> float:
    """Between Gaussians fitted to features [N, D] and [M, D] (Heusel et al., 2017, Eq. 6).

    |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½); the covariances are those of the sets themselves (over N).
    """
    covariance_a, covariance_b = (
        np.cov(x, rowvar=False, bias=True).reshape([x.shape[1]] * 2) for x in (a, b)
    )
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½, and none is negative but by rounding.
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)
    apart = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(product).sum())


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
