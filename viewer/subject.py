"""Subject of a view: a run's asset, or any file of Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

import config as configuration
from gaussian_renderer.activated import Activated
from scene.asset import FORMATS, is_sog_folder, load_asset
from utils.run_folder import RunFolder
from viewer.orbit import Orbit

FOVY = 0.6
"""Vertical angle in radians, for files that hold no cameras."""
CORE = 0.98
"""Share of the Gaussians by which a file's extent is judged: a few may have flown away."""


@dataclass(frozen=True)
class Subject:
    """Gaussians to be viewed.

    title: the prompt, or the file's name; front: the view from there; white: whether the background is, or
    else black.
    """

    title: str
    gaussians: Activated
    front: Orbit
    white: bool


def open_subject(path: Path, device: torch.device, axes: str | None = None) -> Subject:
    """The asset of the run in the folder `path`, while it is going the last one it has saved, or the Gaussians in a
    file.

    axes: up and front of the file, where its own note or what is usual in its format is not right.

    Raises OSError and ValueError, ConfigError among them, one sentence each.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{str(path)!r} is not there, but it must be a run's folder, such as outputs/quickstart/a-car, or a "
            f"{FORMATS} file."
        )
    if not path.is_dir() or is_sog_folder(path):
        gaussians = Activated.of(load_asset(path, device, axes))
        return Subject(path.stem, gaussians, _facing(gaussians), white=True)
    run = RunFolder(path)
    if not run.config.is_file():
        raise ValueError(
            f"{str(path)!r} holds no {run.config.name}, but it must be a run's folder, such as "
            f"outputs/quickstart/a-car, or a {FORMATS} file."
        )
    config = configuration.of_file(run.config)
    gaussians = Activated.of(load_asset(path, device, axes))
    return Subject(config.guidance.text, gaussians, Orbit.front(config), config.model.white_background)


def _facing(gaussians: Activated) -> Orbit:
    """The view from the front, a little above, as far off as all but a few Gaussians need to be seen."""
    center = gaussians.means.median(dim=0).values
    distance = (gaussians.means - center).norm(dim=1) + gaussians.scales.amax(dim=1)
    extent = float(distance.sort().values[math.ceil(CORE * len(distance)) - 1])
    x, y, z = center.tolist()
    return Orbit((x, y, z), 0.0, 75.0, 1.1 * extent / math.sin(FOVY / 2), FOVY)
