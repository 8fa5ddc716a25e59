"""A guide, whose pictures a prior is shown: a mesh or an asset, in the place where the run begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from config.model_params import GAUSSIANS_SUFFIXES
from config.schema import Config
from scene.asset import load_asset
from scene.axes import OURS
from scene.discs import discs
from scene.gaussian_model import GaussianModel
from scene.initialize import axes_of, fit_of_start, is_mesh, read_upright
from scene.point_cloud import Fit
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
    """Place at which a run has the shape of a file.

    Attributes:
        axes: up and front of its file.
        fit: the move of its points, turned into our axes; None if they stay.
        bounds: [2, 3] of those points before the move; None for an asset.
    """

    axes: str
    fit: Fit | None
    bounds: Tensor | None


def start_file(config: Config) -> str:
    """Return the path of the file that a run starts from, or the name of a shape without one."""
    return config.model.pretrained_model_path or config.camera.init_shape


def guide_file(config: Config) -> str:
    """Return the path of the file that `controlnet_guide` names."""
    guide = config.guidance.controlnet_guide
    return start_file(config) if guide == "start" else guide


def load_guide_shape(
    config: Config,
    draws: Draws,
    device: torch.device,
    path: str | None = None,
    whose: str = "the guide of ControlNets",
) -> GuideShape:
    """Load a file's shape on `device`: that which `controlnet_guide` names, unless another `path` is given.

    An asset is taken as it is. A mesh becomes discs that lie on its faces, where `init_shape` has put, or would put, it.

    whose: what needs the shape, in messages.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    path, params, model = guide_file(config) if path is None else path, config.camera, config.model
    if path == model.pretrained_model_path:
        return GuideShape(load_asset(Path(path), device, model.input_axes), None)
    of_start = path == params.init_shape
    if of_start and not is_mesh(path):
        raise ValueError(
            f"{path!r} holds points without faces, but {whose} needs a surface: a mesh, or "
            "--pretrained_model_path with Gaussians."
        )
    if not of_start and _is_asset(path):
        return GuideShape(load_asset(Path(path), device), None)
    place = place_of(path, config, draws)
    count = int(PER_PIXEL * params.image_w * params.image_h)
    cloud = read_upright(path, place.axes, min(max(count, FEWEST), MOST), draws.at("controlnet"))
    if cloud.normals is None:
        raise ValueError(f"{path!r} has no face with an area, but {whose} needs a surface.")
    points = cloud.points if place.fit is None else place.fit(cloud.points)
    on_surface = discs(
        replace(cloud, points=points), 0, opacity=OPAQUE, overlap=OVERLAP, thickness=THICKNESS, device=device
    )
    return GuideShape(on_surface, cloud.normals.to(device))


def place_of(path: str, config: Config, draws: Draws) -> Place:
    """Find where a file's shape lies: a mesh where `init_shape` has put, or would put, it; an asset as it is read.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    params = config.camera
    of_start = path == params.init_shape
    if path == config.model.pretrained_model_path or (not of_start and _is_asset(path)):
        return Place(OURS, None, None)
    axes = axes_of(path, params.init_axes if of_start else None)
    points = read_upright(path, axes, params.init_num_pts, draws.at("init")).points
    return Place(axes, fit_of_start(points, params), torch.stack(points.aminmax(dim=0)))


def _is_asset(path: str) -> bool:
    """Return whether a file is of Gaussians or points, and not a mesh."""
    name = path.lower()
    if name.endswith((".ply", ".obj", ".gltf", ".stl", ".npz")):
        return not is_mesh(path)
    return name.endswith(GAUSSIANS_SUFFIXES) and (not name.endswith(".glb") or name.endswith(".splat.glb"))
