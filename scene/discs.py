"""Gaussians that lie on a surface, as discs across its normals."""

from __future__ import annotations

import torch

from scene.gaussian_model import GaussianModel
from scene.point_cloud import PointCloud


def discs(
    cloud: PointCloud,
    sh_degree: int,
    *,
    opacity: float,
    overlap: float,
    thickness: float,
    device: torch.device,
) -> GaussianModel:
    """Make discs of one size at points spread evenly over a surface, grey where they have no colours.

    opacity: of each; overlap: their radius (one standard deviation) as a share of the distance between neighbours;
    thickness: as a share of that radius. Raises ValueError for points without normals.
    """
    if cloud.normals is None:
        raise ValueError("cloud has no normals, but discs lie across them.")
    points, normals = cloud.points.to(device), cloud.normals.to(device)
    colors = torch.full_like(points, 0.5) if cloud.colors is None else cloud.colors.to(device)
    gaussians = GaussianModel.from_points(points, colors, sh_degree, opacity)
    radius = overlap * gaussians.scales.detach().square().mean().sqrt()
    scales = radius.expand(len(points), 3) * torch.tensor([1.0, 1.0, thickness], device=device)
    # From +z to the normal, or its opposite, whichever is nearer: a disc has no front.
    x, y, z = torch.where(normals[:, 2:] < 0, -normals, normals).unbind(1)
    turns = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=1)
    gaussians.set_raw({"scaling": scales.log(), "rotation": turns})
    return gaussians
