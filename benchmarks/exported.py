"""Renders of textured meshes against renders of the Gaussians that they were made of.

  python benchmarks/exported.py outputs/quickstart/* -o docs/export.jpg

For each asset its mesh is made as export.py makes it, written to a .glb, read by trimesh and drawn in eight views, none of
which made it. The asset fills them. Prints a table of PSNR, SSIM and the intersection over the union of outlines, and where
the error lies: inside of both outlines, at alpha above 0.9, or at the rim. Draws both side by side.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporting.formats import write_mesh
from exporting.mesh.build import build_mesh
from exporting.mesh.options import MeshOptions
from exporting.mesh.views import FIELD_OF_VIEW, Box, box_of
from gaussian_renderer import Gaussians, render
from scene.asset import load_asset
from scene.axes import Y_UP, turn
from scene.cameras import Cameras, orbit
from scene.meshes.sight import sight
from utils.media import Row, rows_sheet, to_float, write_jpeg

VIEWS, SIZE = 8, 256
FINER = 3
"""Samples of a pixel along a side when meshes are drawn, for programs smooth edges and textures, too."""
SOLID = 0.9
"""Alpha above which a pixel is inside."""
SHOWN = (0, 3, 6)
"""Views in the picture."""


class Likeness(NamedTuple):
    """Means over views: PSNR in dB, SSIM in [-1, 1], intersection over union of outlines in [0, 1].

    colors is the PSNR of the pixels inside of both outlines, in dB; inside the share of the squared error that lies there.
    """

    psnr: float
    ssim: float
    outlines: float
    colors: float
    inside: float


class Drawn(NamedTuple):
    """Drawing of a mesh: rgb [3, S, S] in [0, 1] over white, and the pixels that it covers, [S, S]."""

    rgb: Tensor
    covered: NDArray[np.bool_]


def draw(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    uv: NDArray[np.floating],
    texture: NDArray[np.uint8],
    camera: Cameras,
) -> Drawn:
    """A textured mesh, unlit, in perspective, as the one camera sees it; uv [V, 2] from the texture's bottom left, as
    trimesh has it."""
    fine = replace(
        camera,
        width=camera.width * FINER,
        height=camera.height * FINER,
        focals=camera.focals * FINER,
        principals=(camera.principals + 0.5) * FINER - 0.5,
    )
    height, width = texture.shape[:2]
    seen = sight(fine, np.asarray(vertices), np.asarray(faces))
    place = (uv[faces[seen.faces]] * seen.weights[:, :, None]).sum(axis=1)
    texel = np.stack([place[:, 0] * width, (1 - place[:, 1]) * height], axis=1) - 0.5
    grid = torch.from_numpy(texel / [(width - 1) / 2, (height - 1) / 2] - 1).float()
    image = to_float(np.array(texture))[None]
    colors = F.grid_sample(image, grid[None, None], align_corners=True, padding_mode="border")[0, :, 0]
    drawn = torch.zeros(4, fine.height * fine.width)
    drawn[:3] = 1.0
    pixels = torch.from_numpy(seen.pixels)
    drawn[:3, pixels], drawn[3, pixels] = colors, 1.0
    rgb_alpha = F.avg_pool2d(drawn.reshape(1, 4, fine.height, fine.width), FINER)[0]
    return Drawn(rgb_alpha[:3], rgb_alpha[3].numpy() >= 0.5)


def held_out(box: Box) -> Cameras:
    """Cameras that the asset fills, in a spiral from above down to below the middle, none of them one that a mesh is made from."""
    index = torch.arange(VIEWS, dtype=torch.float64)
    azimuth = torch.rad2deg(index * math.pi * (3 - math.sqrt(5))) + 77.0
    polar = torch.rad2deg(torch.acos(0.85 - 1.2 * (index + 0.5) / VIEWS))
    distance = box.radius / math.sin(FIELD_OF_VIEW / 2)
    return orbit(azimuth, polar, distance, FIELD_OF_VIEW, SIZE, SIZE, center=box.middle.double())


def read_glb(path: Path) -> Any:
    """The one mesh of a file, by trimesh."""
    scene = trimesh.load_scene(path, process=False)
    (mesh,) = scene.geometry.values()
    return mesh


def draw_glb(path: Path, cameras: Cameras) -> list[Drawn]:
    """A file of export.py, turned back to our axes, as each camera sees it."""
    mesh = read_glb(path)
    vertices = np.asarray(mesh.vertices) @ turn(Y_UP).numpy()
    texture = np.array(mesh.visual.material.baseColorTexture.convert("RGB"))
    uv, faces = np.asarray(mesh.visual.uv), np.asarray(mesh.faces)
    return [draw(vertices, faces, uv, texture, cameras[view : view + 1]) for view in range(len(cameras))]


@torch.no_grad()
def compare(gaussians: Gaussians, drawn: list[Drawn], cameras: Cameras) -> tuple[Likeness, Tensor]:
    """Likeness of the drawings to renders of the Gaussians over white, and these renders, [V, 3, S, S]."""
    out = render(gaussians, cameras, torch.ones(3))
    truth, alpha = out.rgb.clamp(0, 1), out.alpha[:, 0].numpy()
    found = []
    for view, (rgb, covered) in enumerate(drawn):
        errors = (rgb - truth[view]).square().mean(dim=0).numpy()
        inside = covered & (alpha[view] > SOLID)
        outline = alpha[view] >= 0.5
        similar = structural_similarity(truth[view].numpy(), rgb.numpy(), channel_axis=0, data_range=1.0)
        found.append(
            Likeness(
                decibels(errors.mean()),
                float(similar),
                float((covered & outline).sum() / (covered | outline).sum()),
                decibels(errors[inside].mean()),
                float(errors[inside].sum() / errors.sum()),
            )
        )
    return Likeness(*np.mean(found, axis=0).tolist()), truth


def decibels(error: float) -> float:
    """PSNR of a mean squared error."""
    return float(-10 * np.log10(error))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", nargs="+", type=Path, help="runs' folders, or .ply files of Gaussians")
    parser.add_argument("-o", "--output", type=Path, help="a picture, .jpg")
    given = parser.parse_args()
    rows = []
    print(
        "| asset | Gaussians | faces | watertight | PSNR, dB | SSIM | outlines, IoU | inside, dB | error inside "
        "| seconds of CPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for path in given.assets:
        gaussians = load_asset(path)
        cameras = held_out(box_of(gaussians))
        start = time.process_time()
        mesh = build_mesh(gaussians, MeshOptions())
        seconds = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mesh.glb"
            write_mesh(file, mesh)
            drawn = draw_glb(file, cameras)
        like, truth = compare(gaussians, drawn, cameras)
        name = path.stem.split("-sctd")[0].replace("-", " ")
        closed = "yes" if len(mesh.open_edges) == 0 else f"no, {len(mesh.open_edges)} edges"
        print(
            f"| {name} | {len(gaussians)} | {len(mesh.faces)} | {closed} | {like.psnr:.1f} | {like.ssim:.3f} "
            f"| {like.outlines:.3f} | {like.colors:.1f} | {like.inside:.0%} | {seconds:.0f} |",
            flush=True,
        )
        pairs = [image for view in SHOWN for image in (truth[view], drawn[view].rgb)]
        rows.append(Row(name, torch.stack(pairs), ["Gaussians", "mesh"] * len(SHOWN)))
    if given.output:
        write_jpeg(given.output, rows_sheet(rows))


if __name__ == "__main__":
    main()
