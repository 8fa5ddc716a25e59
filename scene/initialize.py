"""The Gaussians that training starts from: a random shape or a point cloud from a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scene.gaussian_model import GaussianModel
from scene.ply import PointCloud, read_points
from utils.spherical_harmonics import dc_to_rgb

if TYPE_CHECKING:
    from config.schema import GenerateCamParams, ModelParams

BALL_RADIUS = 0.5
"""Radius of the 'sphere' in world units."""
CUBOIDS = {"box": (1.0, 1.0, 1.0), "rectangle_x": (0.6, 1.2, 0.5), "rectangle_z": (0.8, 0.6, 1.2)}
"""Edge lengths along x, y, z of the cuboids, centred at the origin, in world units."""


def initialize(
    camera_params: GenerateCamParams,
    model_params: ModelParams,
    rng: torch.Generator,
    device: torch.device | str | None = None,
) -> GaussianModel:
    """Gaussians for `init_shape`: 'sphere', 'box', 'rectangle_x', 'rectangle_z', 'scene' or a path to a
    .ply file.

    Shapes have `init_num_pts` near-grey points. A file's points keep their colours, are thinned to
    `init_num_pts` and scaled only if they lie far out of view (see `fit_to_view`). Raises ValueError for an
    unknown shape, for 'pointe', and for whatever is wrong with the file.
    """
    shape, count = camera_params.init_shape, camera_params.init_num_pts
    if shape.lower().endswith(".ply"):
        cloud = thin(read_points(shape), count, rng)
        if len(cloud.points) == 0:
            raise ValueError(f"init_shape is {shape!r}, which holds no points, but at least 1 is needed.")
        view = camera_params.default_radius * math.tan(camera_params.default_fovy / 2.0)
        points = fit_to_view(cloud.points, view)
        colors = cloud.colors if cloud.colors is not None else near_grey(len(points), rng)
    else:
        points = shape_points(shape, count, rng, shell_radius=3.0 * camera_params.radius_range[1])
        colors = near_grey(count, rng)
    return GaussianModel.from_points(points.to(device), colors.to(device), model_params.sh_degree)


def shape_points(shape: str, count: int, rng: torch.Generator, *, shell_radius: float) -> Tensor:
    """`count` random points [count, 3] of a named shape, in world units.

    'sphere' fills a ball, denser towards its middle (uniform radius); the cuboids are filled uniformly;
    'scene' is a shell around the cameras, from `shell_radius` to 1 beyond.
    """
    if shape == "sphere":
        return BALL_RADIUS * torch.rand(count, 1, generator=rng) * _directions(count, rng)
    if shape in CUBOIDS:
        return (torch.rand(count, 3, generator=rng) - 0.5) * torch.tensor(CUBOIDS[shape])
    if shape == "scene":
        return (shell_radius + torch.rand(count, 1, generator=rng)) * _directions(count, rng)
    known = ", ".join(repr(name) for name in ("sphere", *CUBOIDS, "scene"))
    if shape in ("pointe", "shapee"):
        raise ValueError(
            f"init_shape is {shape!r}, which is not available yet; "
            f"use {known} or a path to a .ply point cloud."
        )
    raise ValueError(f"init_shape is {shape!r}, but it must be {known} or a path to a .ply point cloud.")


def _directions(count: int, rng: torch.Generator) -> Tensor:
    """Uniform points [count, 3] on the unit sphere."""
    height, turn = 2.0 * torch.rand(2, count, generator=rng) - 1.0
    ring = (1.0 - height * height).clamp_min(0.0).sqrt()
    angle = math.pi * turn
    return torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)


def near_grey(count: int, rng: torch.Generator) -> Tensor:
    """Colours [count, 3] a hair above middle grey, random so that no two Gaussians are the same."""
    return dc_to_rgb(torch.rand(count, 3, generator=rng) / 255.0)


def thin(cloud: PointCloud, count: int, rng: torch.Generator) -> PointCloud:
    """At most `count` points of the cloud: a random subset, in the old order."""
    if len(cloud.points) <= count:
        return cloud
    rows = torch.randperm(len(cloud.points), generator=rng)[:count].sort().values
    return PointCloud(cloud.points[rows], None if cloud.colors is None else cloud.colors[rows])


def fit_to_view(points: Tensor, view: float) -> Tensor:
    """Points [N, 3] that the default camera can show: the same ones if it can, else centred and scaled.

    `view` is half the height of what the default camera sees at the origin. Clouds whose farthest point
    from the origin is between 0.1 and 1.5 of it stay; others are centred at the middle of their bounding
    box and scaled to reach half of `view`.
    """
    reach = float(points.norm(dim=1).max())
    if 0.1 * view <= reach <= 1.5 * view:
        return points
    low, high = points.aminmax(dim=0)
    centred = points - (low + high) / 2.0
    size = float(centred.norm(dim=1).max())
    return centred * (0.5 * view / size) if size > 0.0 else centred
