"""The skeleton of a run, where its body stands."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from config.schema import Config
from scene.axes import turn
from scene.guide_shape import guide_file, place_of
from scene.point_cloud import upright
from scene.skeleton.file import read_skeleton
from scene.skeleton.skeleton import Skeleton
from utils.rng import Draws

BESIDE = 0.2
"""How far joints may lie outside the box around their mesh, as a share of its longest side, before a line reports it."""
OTHER_POSE = 0.05
"""How far the box around the skin may be from that around the mesh, in the same share."""


def load_skeleton(config: Config, draws: Draws) -> Skeleton:
    """Read the file that `skeleton` names, and take it to where the run has the shape that it belongs to, the guide's.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    path = str(config.camera.skeleton)
    read, place = read_skeleton(path), place_of(guide_file(config), config, draws)
    if place.bounds is not None:
        _compare(path, read, place.axes, place.bounds.double(), guide_file(config))
    fit = place.fit
    scale, shift = (1.0, np.zeros(3)) if fit is None else (fit.factor, -fit.factor * fit.middle.numpy())
    return read.moved(turn(place.axes).numpy().T, scale, shift)


def _compare(path: str, skeleton: Skeleton, axes: str, bounds: Tensor, mesh: str) -> None:
    """Report a skeleton that cannot be that of a mesh with bounds [2, 3] in our axes: of other units, or in another pose."""
    (low, high), size = bounds, (bounds[1] - bounds[0]).max()
    joints = upright(torch.from_numpy(skeleton.positions), axes)
    outside = torch.maximum(low - joints, joints - high).amax(dim=1)
    if bool((outside > BESIDE * size).any()):
        logging.warning(
            "%r: its joint %r lies outside of %r: both must be in the same coordinates and units.",
            *(path, skeleton.names[int(outside.argmax())], mesh),
        )
    elif skeleton.skin is not None:
        skin = torch.stack(upright(torch.from_numpy(skeleton.skin.vertices), axes).aminmax(dim=0))
        if bool(((skin - bounds).abs() > OTHER_POSE * size).any()):
            logging.warning(
                "%r: its skin has another shape or pose than %r, so the mesh will bend wrongly: start from the skin's own .npz file.",
                *(path, mesh),
            )
