"""What is exported: the Gaussians of a run, or of a file."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from scene.gaussian_model import GaussianModel
from utils.run_folder import RunFolder


def load_asset(path: Path, device: torch.device | None = None) -> GaussianModel:
    """The Gaussians, at least one, of a .ply file or of a run: those of its end, or if it has not ended the newest ones.

    Raises FileNotFoundError and ValueError, one sentence each, for a path without Gaussians.
    """
    gaussians = GaussianModel.load_ply(_newest(RunFolder(path)) if path.is_dir() else path, device)
    if len(gaussians) == 0:
        raise ValueError(f"{str(path)!r} holds no Gaussians, but an asset has at least 1.")
    return gaussians


def _newest(run: RunFolder) -> Path:
    """The file with the newest Gaussians of a run."""
    if run.asset.is_file():
        return run.asset
    files = run.root.glob("point_cloud/iteration_*/point_cloud.ply")
    steps = ((re.fullmatch(r"iteration_(\d{1,9})", file.parent.name), file) for file in files)
    saved = [(int(step[1]), file) for step, file in steps if step is not None]
    if not saved:
        raise FileNotFoundError(
            f"{str(run.root)!r} holds no Gaussians: give a run's folder that has a save/asset.ply or "
            "a point_cloud/iteration_N, or a .ply file."
        )
    return max(saved)[1]
