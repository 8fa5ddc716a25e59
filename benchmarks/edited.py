"""Compare an asset before and after another prompt: python benchmarks/edited.py FOLDER [-o docs/edit.jpg]

Makes each asset with the quickstart, unless FOLDER has it from before, and goes on from it as docs/edit.md
describes. Prints a table of the judge's and the truth's verdict on it before and after, and draws both.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from config import Config
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from toybox.lab.assess import assess, surface_cameras
from toybox.lab.metrics import chamfer_distance, visible_surface
from train import train
from utils.media import Row, rows_sheet, write_jpeg

QUIET = ("--quiet", "--save_video", "false")
AZIMUTHS, SIZE = (20.0, 200.0), 160
"""Views of the picture, in degrees, and their pixels."""


class Edit(NamedTuple):
    """Edit of one prompt's asset into another's, with these flags."""

    before: str
    after: str
    kept: str
    flags: tuple[str, ...]


COLOURS = ("--opt", "config/edit.yaml")
SHAPE = (
    *("--keep", "color", "--guidance_type", "sds"),
    *("--position_lr_init", "0.002", "--position_lr_final", "0.0003", "--fast", "false"),
)
EDITS = (
    Edit("a red mushroom", "a blue mushroom", "geometry", COLOURS),
    Edit("a red mushroom", "a blue mushroom", "nothing", (*COLOURS, "--keep", "nothing")),
    Edit("a yellow car", "a green car", "geometry", COLOURS),
    Edit("a blue chair", "a pink chair", "geometry", COLOURS),
    Edit("a red mushroom", "a red mug", "colours", SHAPE),
)


@cache
def made(prompt: str, folder: Path) -> Path:
    """The file of the quickstart's asset."""
    config = configuration.load([*QUIET, "--text", prompt])
    name = prompt.replace(" ", "-")
    finished = sorted(folder.glob(f"{config.model.workspace}/{name}-*/save/asset.ply"))
    return finished[-1] if finished else train(config, folder).run.asset


@torch.no_grad()
def views(gaussians: Gaussians, config: Config) -> Tensor:
    c = config.camera
    cameras = orbit(AZIMUTHS, c.default_polar, c.default_radius, c.default_fovy, SIZE, SIZE)
    return show(gaussians, cameras, white=True, ssaa=c.SSAA, antialiasing=config.pipeline.antialiasing).rgb


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("-o", "--output", type=Path, help="a picture, .jpg")
    given = parser.parse_args()
    print(
        "| from | to | kept | judge before | judge after | PSNR before | PSNR after | Chamfer before | Chamfer after | moved "
        "| processor seconds |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for edit in EDITS:
        source = made(edit.before, given.folder)
        flags = (*QUIET, "--pretrained_model_path", str(source), "--text", edit.after)
        config = configuration.load([*edit.flags, *flags])
        start = time.process_time()
        new = GaussianModel.load_ply(train(config, given.folder).run.asset)
        seconds = time.process_time() - start
        old = GaussianModel.load_ply(source)
        was, became = (assess(asset, edit.after, config) for asset in (old, new))
        around = surface_cameras(config.camera)
        moved = 100 * chamfer_distance(visible_surface(old, around), visible_surface(new, around))
        print(
            f"| {edit.before} | {edit.after} | {edit.kept} | {was.recognised:.0%} | {became.recognised:.0%} "
            f"| {was.psnr:.1f} | {became.psnr:.1f} | {was.chamfer:.2f} | {became.chamfer:.2f} | {moved:.2f} | {seconds:.0f} |",
            flush=True,
        )
        title = f"{edit.before} to {edit.after}, kept: {edit.kept}"
        labels = ["before", "", "after", ""]
        rows.append(Row(title, torch.cat([views(old, config), views(new, config)]), labels))
    if given.output:
        write_jpeg(given.output, rows_sheet(rows))


if __name__ == "__main__":
    main()
