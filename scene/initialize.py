"""The Gaussians that training starts from: a random shape, Point-E, a file of points or a mesh, or other Gaussians."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from config.camera_params import MESH_SUFFIXES, START_SUFFIXES, GenerateCamParams
from config.model_params import ModelParams
from config.schema import Config
from scene.asset import load_asset
from scene.discs import discs
from scene.gaussian_model import GaussianModel
from scene.ply import has_faces
from scene.point_cloud import Fit, PointCloud, fit_of, thin, without_broken
from scene.points_ply import read_points
from scene.shapes import near_grey, shape_points
from utils.spherical_harmonics import num_coefficients

CONVENTIONS = {
    ".ply": "z,x",
    ".obj": "y,z",
    ".glb": "y,z",  # as glTF 2.0, section 3.4, has it
    ".gltf": "y,z",
    ".stl": "z,-y",
    ".npz": "y,z",  # as SMPL and its kin stand
}
"""Up and front (see `point_cloud.upright`) by the end of a file's name, where `init_axes` does not name them."""
OPACITY, OVERLAP, THICKNESS = 0.9, 0.7, 0.1
"""Those of the discs that `init_fit_iter` begins with: see `discs`."""


def initialize(config: Config, rng: torch.Generator, device: torch.device) -> GaussianModel:
    """Make the Gaussians to start from, on `device`.

    They are those of `pretrained_model_path` as they are, or round ones at the points of `init_shape`, at most
    `init_num_pts`. With `init_fit_iter` they are discs that lie on a mesh. Points of a file or of Point-E are turned upright and, if the default camera does not show
    them well, moved (see `fit_of`); without colours they are near-grey, as shapes are.

    Raises ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file or with
    Point-E.
    """
    if config.model.pretrained_model_path is not None:
        return _continued(config.model, device)
    cloud = _start(config, rng, device)
    if config.camera.init_fit_iter > 0:
        if cloud.normals is None:
            raise ValueError(
                f"GenerateCamParams.init_fit_iter is {config.camera.init_fit_iter}, but init_shape {config.camera.init_shape!r} "
                "has no face with an area: only what starts from a mesh is fitted to it."
            )
        return discs(
            cloud,
            config.model.sh_degree,
            opacity=OPACITY,
            overlap=OVERLAP,
            thickness=THICKNESS,
            device=device,
        )
    colors = near_grey(len(cloud), rng) if cloud.colors is None else cloud.colors
    return GaussianModel.from_points(cloud.points.to(device), colors.to(device), config.model.sh_degree)


def _continued(params: ModelParams, device: torch.device) -> GaussianModel:
    """The Gaussians of a file, with harmonics of `sh_degree`: those above it are dropped, missing ones are 0."""
    path, sh_degree = str(params.pretrained_model_path), params.sh_degree
    read = load_asset(Path(path), device, params.input_axes)
    raw = read.state_dict()
    if read.sh_degree > sh_degree:
        logging.warning(
            "%r has harmonics of degree %d: those above sh_degree %d are dropped.",
            path,
            read.sh_degree,
            sh_degree,
        )
    missing = num_coefficients(sh_degree) - 1 - raw["f_rest"].shape[1]
    return GaussianModel({**raw, "f_rest": F.pad(raw["f_rest"], (0, 0, 0, missing))})


def _start(config: Config, rng: torch.Generator, device: torch.device) -> PointCloud:
    """The points of `init_shape`, on the host."""
    params = config.camera
    shape, count = params.init_shape, params.init_num_pts
    if shape == "pointe":
        # Imported where it is asked for: other starts need not wait for it.
        from scene.pointe import sample_point_e

        cloud = sample_point_e(config, rng, device)
    elif shape.lower().endswith(START_SUFFIXES):
        cloud = read_upright(shape, params.init_axes, count, rng)
    else:
        return PointCloud(shape_points(shape, count, rng, shell_radius=3.0 * params.radius_range[1]), None)
    fit = fit_of_start(cloud.points, params)
    return cloud if fit is None else replace(cloud, points=fit(cloud.points))


def fit_of_start(points: Tensor, params: GenerateCamParams) -> Fit | None:
    """Find the move of a start's points [N, 3], in our axes, into view; None if they stay. A body with a skeleton always moves."""
    return fit_of(points, view_of(params), always=params.skeleton is not None)


def view_of(params: GenerateCamParams) -> float:
    """Return half the height of what the default camera sees at the origin, in world units."""
    return params.default_radius * math.tan(params.default_fovy / 2.0)


def read_upright(path: str, axes: str | None, count: int, rng: torch.Generator) -> PointCloud:
    """Read at most `count` points of a file, turned from `axes`, or else those of its format, into ours."""
    axes = axes_of(path, axes)
    if is_mesh(path):
        from scene.meshes.sample import sample_mesh

        return sample_mesh(path, count, rng).upright(axes)
    return thin(without_broken(read_points(path), path), count, rng).upright(axes)


def axes_of(path: str, axes: str | None) -> str:
    """Return `axes`, or else those of a start's file by the end of its name."""
    return axes or next(up for end, up in CONVENTIONS.items() if path.lower().endswith(end))


def is_mesh(path: str) -> bool:
    """Return whether the file of a start is a mesh, and not points. Raises as `has_faces` does."""
    return path.lower().endswith(MESH_SUFFIXES) or has_faces(path)
