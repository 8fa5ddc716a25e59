"""Gaussians for the tests of exports."""

from __future__ import annotations

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel
from utils.spherical_harmonics import num_coefficients, rgb_to_dc


def random_gaussians(count: int, degree: int, seed: int = 0) -> GaussianModel:
    """Colours in [0, 1], opacities in [0.02, 0.98], quaternions of any length, harmonics well below 1."""
    rng = torch.Generator().manual_seed(seed)
    opacity = 0.02 + 0.96 * torch.rand(count, 1, generator=rng)
    return GaussianModel(
        {
            "xyz": torch.randn(count, 3, generator=rng) * torch.tensor([0.4, 0.2, 0.6]),
            "f_dc": rgb_to_dc(torch.rand(count, 1, 3, generator=rng)),
            "f_rest": 0.15 * torch.randn(count, num_coefficients(degree) - 1, 3, generator=rng).clamp(-2, 2),
            "opacity": torch.logit(opacity),
            "scaling": -4 + torch.randn(count, 3, generator=rng),
            "rotation": 2 * torch.randn(count, 4, generator=rng),
        }
    )


def on_surface(points: Tensor, normals: Tensor, colors: Tensor, size: float) -> GaussianModel:
    """Flat opaque Gaussians of one size on a surface: points, unit normals (not -z) and colours in [0, 1], all [N, 3]."""
    count = len(points)
    x, y, z = normals.unbind(-1)
    # The rotation that takes z to the normal n has the quaternion (1 + n_z, -n_y, n_x, 0), normalised.
    quaternions = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=-1)
    return GaussianModel(
        {
            "xyz": points,
            "f_dc": rgb_to_dc(colors)[:, None],
            "f_rest": torch.zeros(count, 0, 3),
            "opacity": torch.full((count, 1), 4.0),
            "scaling": torch.tensor([size, size, 0.15 * size]).log().expand(count, 3),
            "rotation": quaternions,
        }
    )


def spiral(count: int) -> Tensor:
    """Directions [count, 3] evenly all around."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    azimuth, r = index * torch.pi * (3 - 5**0.5), (1 - z * z).sqrt()
    return torch.stack([r * azimuth.cos(), r * azimuth.sin(), z], dim=-1).float()
