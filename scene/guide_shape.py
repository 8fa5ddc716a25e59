"""The guide of ControlNets: a shape whose pictures they are shown, a mesh or an asset, in the place where the run begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from config.model_params import GAUSSIANS_SUFFIXES
from config.schema import Config
from scene.asset import load_asset
from scene.axes import OURS
from scene.gaussian_model import GaussianModel
from scene.initialize import axes_of_format, is_mesh, read_upright, view_of
from scene.point_cloud import Fit, PointCloud, fit_of
from scene.skeleton.openpose import Keypoints
from utils.rng import Draws

PER_PIXEL = 4.0
"""Discs that lie on a mesh, for each pixel of an image: several in a pixel, where the mesh fills half of the view."""
FEWEST, MOST = 20_000, 300_000
"""Bounds on their number."""
OPAQUE, THICKNESS, OVERLAP = 0.99, 0.01, 1.25
"""Opacity of a disc, its thickness as a share of its radius, and that as a share of the distance between neighbours."""


@dataclass(frozen=True)
class GuideShape:
    """Gaussians on a surface, and its normals [N, 3] of unit length in the world; None where only the Gaussians are known.

    keypoints: those of a body's skeleton, if it has one.
    """

    gaussians: GaussianModel
    normals: Tensor | None
    keypoints: Keypoints | None = None


@dataclass(frozen=True)
class Place:
    """Where a run has its guide.

    Attributes:
        axes: up and front of its file.
        fit: the move of its points, turned into our axes; None if they stay.
        bounds: [2, 3] of those points before the move; None for an asset.
    """

    axes: str
    fit: Fit | None
    bounds: Tensor | None


def guide_file(config: Config) -> str:
    """Return the path of the file that `controlnet_guide` names."""
    start = config.model.pretrained_model_path or config.camera.init_shape
    return start if config.guidance.controlnet_guide == "start" else config.guidance.controlnet_guide


def load_guide_shape(config: Config, draws: Draws, device: torch.device) -> GuideShape:
    """Load what `controlnet_guide` names, on `device`.

    An asset is taken as it is. A mesh becomes discs that lie on its faces, where `init_shape` has put, or would put, it.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    path, params, model = guide_file(config), config.camera, config.model
    if path == model.pretrained_model_path:
        return GuideShape(load_asset(Path(path), device, model.input_axes), None)
    of_start = path == params.init_shape
    if of_start and not is_mesh(path):
        raise ValueError(
            f"{path!r} holds points without faces, but the guide of ControlNets needs a surface: a mesh, or "
            "--pretrained_model_path with Gaussians."
        )
    if not of_start and _is_asset(path):
        return GuideShape(load_asset(Path(path), device), None)
    place = place_of_guide(config, draws)
    count = int(PER_PIXEL * params.image_w * params.image_h)
    cloud = read_upright(path, place.axes, min(max(count, FEWEST), MOST), draws.at("controlnet"))
    if cloud.normals is None:
        raise ValueError(f"{path!r} has no face with an area, but the guide of ControlNets needs a surface.")
    points = cloud.points if place.fit is None else place.fit(cloud.points)
    return _discs(PointCloud(points, cloud.colors, cloud.normals), device)


def place_of_guide(config: Config, draws: Draws) -> Place:
    """Find where the guide's file lies: a mesh where `init_shape` has put, or would put, it; an asset as it is read.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    path, params = guide_file(config), config.camera
    of_start = path == params.init_shape
    if path == config.model.pretrained_model_path or (not of_start and _is_asset(path)):
        return Place(OURS, None, None)
    axes = (params.init_axes if of_start else None) or axes_of_format(path)
    points = read_upright(path, axes, params.init_num_pts, draws.at("init")).points
    fit = fit_of(points, view_of(params), always=params.skeleton is not None)
    return Place(axes, fit, torch.stack(points.aminmax(dim=0)))


def _is_asset(path: str) -> bool:
    """Return whether a file is of Gaussians or points, and not a mesh."""
    name = path.lower()
    if name.endswith((".ply", ".obj", ".gltf", ".stl", ".npz")):
        return not is_mesh(path)
    return name.endswith(GAUSSIANS_SUFFIXES) and (not name.endswith(".glb") or name.endswith(".splat.glb"))


def _discs(cloud: PointCloud, device: torch.device) -> GuideShape:
    """Make opaque discs that lie across the normals of points spread evenly, and touch."""
    assert cloud.normals is not None
    points, normals = cloud.points.to(device), cloud.normals.to(device)
    colors = torch.full_like(points, 0.5) if cloud.colors is None else cloud.colors.to(device)
    gaussians = GaussianModel.from_points(points, colors, 0, OPAQUE)
    radius = OVERLAP * gaussians.scales.detach().square().mean().sqrt()
    scales = radius.expand(len(points), 3) * torch.tensor([1.0, 1.0, THICKNESS], device=device)
    # From +z to the normal, or its opposite, whichever is nearer: a disc has no front.
    x, y, z = torch.where(normals[:, 2:] < 0, -normals, normals).unbind(1)
    turns = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=1)
    gaussians.set_raw({"scaling": scales.log(), "rotation": turns})
    return GuideShape(gaussians, normals)
