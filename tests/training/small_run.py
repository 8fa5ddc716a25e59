"""Folders of runs that were never run."""

from __future__ import annotations

from pathlib import Path

import torch

import config as configuration
from utils.files import write_bytes, write_text
from utils.media import write_png, write_video
from utils.run_cost import RunCost
from utils.run_folder import RunFolder

COST = RunCost(151.4, 1.07, 6000, 3.48, "a machine of two cores")


def run_in(folder: Path, *flags: str) -> RunFolder:
    """Write a run of ten iterations that has left its settings and an asset."""
    run = RunFolder(folder)
    config = configuration.load(["--iterations", "10", "--vis_interval", "5", *flags])
    write_text(run.config, configuration.dump(config))
    write_bytes(run.asset, b"Gaussians")
    return run


def add_pictures(run: RunFolder, size: int = 32, frames: int = 10) -> None:
    """Write a run's pictures and videos, with frame k of the process video at brightness k / frames."""
    grey = torch.linspace(0, 1, frames)[:, None, None, None].expand(-1, 3, size, size)
    for kind in ("rgb", "depth"):
        write_video(run.video(10, kind), grey)
    write_video(run.process_video, grey)
    for azimuth in range(0, 360, 60):
        write_png(run.test_view(10, azimuth), grey[0])
    for path in (run.start, run.train_picture(10)):
        write_png(path, grey[0])
