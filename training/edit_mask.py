"""Which Gaussians of a start an edit may change: those that `edit_mask` names."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from config.edit_mask import Box, Sphere, region
from config.schema import Config
from gaussian_renderer.lift import lift
from scene.axes import OURS
from scene.cameras_json import read_cameras_json
from scene.gaussian_model import GaussianModel
from scene.ply import noted_axes
from scene.point_cloud import without_broken
from scene.points_ply import read_points
from utils.device import HOST
from utils.media import read_image

PAINT = (1.0, 0.0, 1.0)
"""Colour of the marked places of a .ply file: magenta, which few things have."""
NEAR_PAINT = 0.25
"""How far each channel may be from it."""
FAR = 0.05
"""Distance to the painted points, as a share of the asset's size, from which they seem to be another asset's."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

logger = logging.getLogger(__name__)


def fixed_by_mask(config: Config, gaussians: GaussianModel) -> Tensor | None:
    """Return which of the Gaussians must not change, [N] bool on their device; None without `edit_mask`.

    One line reports how many change, and where the asset is. Raises OSError, and ValueError in one sentence, for whatever is
    wrong with a file, and where no Gaussian would change.
    """
    text = config.optimization.edit_mask
    if text is None:
        return None
    inside = _inside(text, config, gaussians).to(gaussians.device)
    low, high = (
        ", ".join(f"{value:.3g}" for value in ends.tolist())
        for ends in gaussians.means.detach().aminmax(dim=0)
    )
    where = f"the asset reaches from ({low}) to ({high})"
    if not bool(inside.any()):
        raise ValueError(
            f"OptimizationParams.edit_mask is {text!r}, but none of the {len(gaussians)} Gaussians is in it: {where}."
        )
    logger.info("edit_mask: %d of %d Gaussians change; %s.", int(inside.sum()), len(gaussians), where)
    return ~inside


def _inside(text: str, config: Config, gaussians: GaussianModel) -> Tensor:
    """Whether each Gaussian is in what `text` names, [N] bool."""
    named, means = region(text), gaussians.means.detach()
    if isinstance(named, Box):
        low, high = torch.tensor((named.low, named.high)).to(means)
        return ((means >= low) & (means <= high)).all(dim=1)
    if isinstance(named, Sphere):
        return (means - torch.tensor(named.center).to(means)).norm(dim=1) <= named.radius
    if text.lower().endswith(".npy"):
        return _listed(text, len(gaussians))
    if text.lower().endswith(".ply"):
        return _painted(text, config.model.input_axes, means.to(HOST))
    return _segmented(Path(text), gaussians)


def _listed(path: str, count: int) -> Tensor:
    """The truth values of a file, one for each Gaussian of the start, in its order."""
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path!r} cannot be read as an array of NumPy: {error}.") from None
    if not isinstance(found, np.ndarray) or found.shape != (count,) or found.dtype.kind not in "biu":
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "several arrays"
        raise ValueError(
            f"{path!r} holds {what}, but edit_mask needs truth values [{count}], one for each Gaussian."
        )
    return torch.from_numpy(found != 0)


def _painted(path: str, axes: str | None, means: Tensor) -> Tensor:
    """Whether the point of a .ply file that is nearest to each mean [N, 3] is painted. It is in `axes`, or those of its note, or
    else in ours."""
    cloud = without_broken(read_points(path), path).upright(axes or noted_axes(path) or OURS)
    if cloud.colors is None:
        raise ValueError(
            f"{path!r} has no colours, but edit_mask needs places that are painted magenta (#ff00ff)."
        )
    marked = ((cloud.colors - torch.tensor(PAINT)).abs() <= NEAR_PAINT).all(dim=1)
    if not bool(marked.any()):
        raise ValueError(f"{path!r} has no point that is painted magenta (#ff00ff), but edit_mask needs one.")
    distances, nearest = cKDTree(cloud.points.numpy()).query(means.numpy())
    size = float((means.amax(dim=0) - means.amin(dim=0)).norm())
    if float(np.median(distances)) > FAR * size:
        logger.warning(
            "%r: its points are mostly %.3g from the Gaussians, whose asset is %.3g in size: is it the same asset in the same axes?",
            path, np.median(distances), size,
        )  # fmt: skip
    return marked[torch.from_numpy(nearest)]


def _segmented(folder: Path, gaussians: GaussianModel) -> Tensor:
    """Whether most of what is seen of each Gaussian is in the masks of a folder. What no view sees is as its nearest neighbour
    that is seen."""
    cameras = read_cameras_json(folder / "cameras.json")
    masks = {
        name: file for name in cameras for end in PICTURES if (file := folder / f"{name}{end}").is_file()
    }
    if not masks:
        raise ValueError(
            f"{str(folder)!r} has no mask for any view of its cameras.json, such as {next(iter(cameras), 'view_000')}.png."
        )
    if left := [name for name in cameras if name not in masks]:
        logger.warning(
            "%r has no masks for %d of %d views: %s.", str(folder), len(left), len(cameras), ", ".join(left)
        )
    seen, inside = (
        each.to(HOST)
        for each in lift(
            gaussians, ((cameras[name], read_image(file).mean(dim=0)) for name, file in masks.items())
        )
    )
    means, known = gaussians.means.detach().to(HOST), seen > 0
    if not bool(known.any()):
        raise ValueError(f"The views of {str(folder / 'cameras.json')!r} show none of the Gaussians.")
    within = inside > 0.5 * seen
    nearest = cKDTree(means[known].numpy()).query(means.numpy())[1]
    return torch.where(known, within, within[known][torch.from_numpy(nearest)])
