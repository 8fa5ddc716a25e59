"""The skeleton of a run, where its body stands."""

from __future__ import annotations

import logging

import numpy as np
import torch

from config.schema import Config
from scene.axes import turn
from scene.guide_shape import guide_file, place_of
from scene.point_cloud import upright
from scene.skeleton.file import read_skeleton
from scene.skeleton.skeleton import Skeleton
from utils.rng import Draws

BESIDE = 0.2
"""How far joints may lie outside the box around their mesh, as a share of its longest side, before a line reports it."""


def load_skeleton(config: Config, draws: Draws) -> Skeleton:
    """Read the file that `skeleton` names, and take it to where the run has the shape that it belongs to, the guide's.

    Raises: ValueError and FileNotFoundError, one sentence each, for whatever is wrong with a file.
    """
    path = str(config.camera.skeleton)
    read, place = read_skeleton(path), place_of(guide_file(config), config, draws)
    if place.bounds is not None:
        low, high = place.bounds.double()
        joints = upright(torch.from_numpy(read.positions), place.axes)
        outside = torch.maximum(low - joints, joints - high).amax(dim=1)
        if bool((outside > BESIDE * (high - low).max()).any()):
            farthest = read.names[int(outside.argmax())]
            logging.warning(
                "%r: its joint %r lies outside of %r: both must be in the same coordinates and units.",
                *(path, farthest, guide_file(config)),
            )
    fit = place.fit
    scale, shift = (1.0, np.zeros(3)) if fit is None else (fit.factor, -fit.factor * fit.middle.numpy())
    return read.moved(turn(place.axes).numpy().T, scale, shift)
