"""Two assets that show in any picture which way they face, as Gaussians and as meshes."""

from __future__ import annotations

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel
from tests.exporting.assets import on_surface, spiral
from utils.spherical_harmonics import num_coefficients

BALLS = (
    # Place, radius and colour: a blue body, a red nose to the front (+x), a green hat (+z), a yellow left hand (+y).
    ((0.0, 0.0, 0.0), 0.45, (0.15, 0.35, 0.75)),
    ((0.5, 0.0, 0.05), 0.14, (0.8, 0.15, 0.1)),
    ((-0.05, 0.0, 0.5), 0.22, (0.1, 0.55, 0.2)),
    ((0.05, 0.5, -0.1), 0.17, (0.85, 0.65, 0.1)),
)


def plain() -> GaussianModel:
    """Round Gaussians of degree 0 on the balls, with bands of light and shade."""
    parts = [_ball(torch.tensor(place), radius, torch.tensor(rgb)) for place, radius, rgb in BALLS]
    points, normals, colors = (torch.cat(tensors) for tensors in zip(*parts))
    raw = on_surface(points, normals, colors, 0.022).state_dict()
    # As thick as wide: what is thinner than a pixel is blurred by each program in its own way.
    raw["scaling"] = raw["scaling"][:, :1].expand(-1, 3)
    return GaussianModel(raw)


def stretched() -> GaussianModel:
    """The same places, with Gaussians of degree 3, stretched, turned any way and seen through."""
    rng = torch.Generator().manual_seed(0)
    raw = plain().state_dict()
    count = len(raw["xyz"])
    raw["f_rest"] = 0.06 * torch.randn(count, num_coefficients(3) - 1, 3, generator=rng).clamp(-2, 2)
    raw["opacity"] = torch.logit(0.5 + 0.48 * torch.rand(count, 1, generator=rng))
    raw["scaling"] = (0.01 + 0.03 * torch.rand(count, 3, generator=rng) ** 2).log()
    raw["rotation"] = torch.randn(count, 4, generator=rng)
    return GaussianModel(raw)


def _ball(place: Tensor, radius: float, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    normals = spiral(round(10000 * radius**2))
    shade = 0.85 + 0.15 * torch.sin(9 * normals[:, 2:] + 2 * normals[:, :1])
    return place + radius * normals, normals, rgb * shade
