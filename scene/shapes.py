"""Random points of simple shapes, and their colours."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from utils.spherical_harmonics import dc_to_rgb

BALL_RADIUS = 0.5
"""Radius of the 'sphere' in world units."""
CUBOIDS = {"box": (1.0, 1.0, 1.0), "rectangle_x": (0.6, 1.2, 0.5), "rectangle_z": (0.8, 0.6, 1.2)}
"""Edge lengths along x, y, z of the cuboids, centred at the origin, in world units."""


def shape_points(shape: str, count: int, rng: torch.Generator, *, shell_radius: float) -> Tensor:
    """Draw `count` random points [count, 3] of a named shape, in world units.

    'sphere' fills a ball, denser towards its middle (uniform radius); the cuboids are filled uniformly; 'scene'
    is a shell around the cameras, from `shell_radius` to 1 beyond. Raises ValueError for another name.
    """
    if shape == "sphere":
        return BALL_RADIUS * torch.rand(count, 1, generator=rng) * directions(count, rng)
    if shape in CUBOIDS:
        return (torch.rand(count, 3, generator=rng) - 0.5) * torch.tensor(CUBOIDS[shape])
    if shape == "scene":
        return (shell_radius + torch.rand(count, 1, generator=rng)) * directions(count, rng)
    known = ", ".join(repr(name) for name in ("sphere", *CUBOIDS, "scene"))
    raise ValueError(f"init_shape is {shape!r}, but it must be {known}, 'pointe' or a path to a file.")


def directions(count: int, rng: torch.Generator) -> Tensor:
    """Draw uniform points [count, 3] on the unit sphere."""
    height, turn = 2.0 * torch.rand(2, count, generator=rng) - 1.0
    ring = (1.0 - height * height).clamp_min(0.0).sqrt()
    angle = math.pi * turn
    return torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)


def near_grey(count: int, rng: torch.Generator) -> Tensor:
    """Draw colours [count, 3] a hair above middle grey, random so that no two Gaussians are the same."""
    return dc_to_rgb(torch.rand(count, 3, generator=rng) / 255.0)
