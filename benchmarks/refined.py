"""Refine a spoilt mesh of each toy: python benchmarks/refined.py FOLDER [-o docs/refine.jpg] [--prompts PROMPT ...] [FLAGS of train.py]

Exports the true toy as a textured mesh with few faces, and blurs its texture. config/refine.yaml starts from that. The table has the
distance to the true toy of the mesh itself, of the Gaussians that are fitted to it, and of what they are refined to.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from config import Config
from exporting.formats import write_mesh
from exporting.mesh.build import build_mesh
from exporting.mesh.options import MeshOptions
from gaussian_renderer.mesh_views import mesh_views
from gaussian_renderer.showcase import NUM_VIEWS, show, views_of
from scene.cameras import Cameras, orbit, turntable
from scene.gaussian_model import GaussianModel
from scene.initialize import initialize
from scene.meshes.placed import load_mesh_of_start
from toybox.captions import parse
from toybox.lab.assess import assess
from toybox.splats import canonical
from train import train
from training.mesh_fit import fit_to_mesh
from utils.device import HOST
from utils.media import Row, rows_sheet, write_jpeg
from utils.rng import Draws

PROMPTS = ("a red mushroom", "a yellow car")
FACES, TEXTURE, BLUR = 600, 256, 10
"""Most faces of a spoilt mesh, texels along a side of its texture, and the standard deviation of that one's blur, in texels."""
AZIMUTHS, SIZE = (20.0, 200.0), 160
"""Views of the picture, in degrees, and their pixels."""
QUIET = ("--opt", "config/refine.yaml", "--quiet", "--save_video", "false", "--save_process", "false")


def spoilt_mesh(prompt: str, folder: Path) -> Path:
    """Write the toy's mesh, unless it is there from before."""
    path = folder / f"{prompt.replace(' ', '-')}.glb"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    mesh = build_mesh(canonical(parse(prompt)), MeshOptions(FACES, TEXTURE))
    blurred = Image.fromarray(mesh.texture).filter(ImageFilter.GaussianBlur(BLUR))
    write_mesh(path, replace(mesh, texture=np.asarray(blurred)))
    return path


def begun(config: Config) -> GaussianModel:
    """Make the Gaussians that the run begins with."""
    draws = Draws(config.seed)
    gaussians = initialize(config, draws.at("init"), HOST)
    fit_to_mesh(gaussians, config, draws)
    return gaussians


def mesh_on_white(config: Config, cameras: Cameras) -> Tensor:
    """Render the mesh [V, 3, H, W] where the run puts it."""
    mesh = load_mesh_of_start(config.camera, Draws(config.seed).at("init"))
    return mesh_views(mesh, cameras).over(torch.ones(3))


def psnr(images: Tensor, truth: Tensor) -> float:
    """Mean over views of the PSNR, in dB."""
    return float((-10 * (images - truth).square().mean(dim=(1, 2, 3)).log10()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the runs")
    parser.add_argument("-o", "--output", type=Path, help="a picture, .jpg")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="toys")
    given, flags = parser.parse_known_args()
    print(
        "| toy | the mesh | fitted | refined | Chamfer before | Chamfer after | judge before | judge after | processor seconds |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for prompt in given.prompts:
        path = spoilt_mesh(prompt, given.folder)
        config = configuration.load([*QUIET, "--init_shape", str(path), "--text", prompt, *flags])
        c = config.camera
        fitted, toy = begun(config), canonical(parse(prompt))
        start = time.process_time()
        refined = GaussianModel.load_ply(train(config, given.folder).run.asset)
        seconds = time.process_time() - start
        was, became = (assess(asset, prompt, config) for asset in (fitted, refined))
        mesh = psnr(mesh_on_white(config, turntable(c, NUM_VIEWS)), views_of(toy, config))
        print(
            f"| {prompt} | {mesh:.1f} | {was.psnr:.1f} | {became.psnr:.1f} | {was.chamfer:.2f} | {became.chamfer:.2f} "
            f"| {was.recognised:.0%} | {became.recognised:.0%} | {seconds:.0f} |",
            flush=True,
        )
        cameras = orbit(AZIMUTHS, c.default_polar, c.default_radius, c.default_fovy, SIZE, SIZE)
        shown = [show(asset, cameras, white=True).rgb for asset in (fitted, refined, toy)]
        labels = ["mesh", "", "fitted", "", "refined", "", "true toy", ""]
        rows.append(Row(prompt, torch.cat([mesh_on_white(config, cameras), *shown]), labels))
        if given.output:
            write_jpeg(given.output, rows_sheet(rows))


if __name__ == "__main__":
    main()
