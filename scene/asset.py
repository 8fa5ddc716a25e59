"""An asset: the Gaussians of a run, or of a file."""

from __future__ import annotations

from pathlib import Path

import torch

from scene.gaussian_model import GaussianModel
from utils.run_folder import RunFolder


def load_asset(path: Path, device: torch.device | None = None) -> GaussianModel:
    """Load the Gaussians, at least one, of a .ply file or of a run: its final ones, or else its newest.

    Raises FileNotFoundError and ValueError, one sentence each, for a path without Gaussians.
    """
    gaussians = GaussianModel.load_ply(RunFolder(path).newest_gaussians() if path.is_dir() else path, device)
    if len(gaussians) == 0:
        raise ValueError(f"{str(path)!r} holds no Gaussians, but an asset has at least 1.")
    return gaussians
