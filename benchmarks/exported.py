"""Renders of textured meshes against renders of the Gaussians that they were made of.

  python benchmarks/exported.py outputs/quickstart/* -o docs/export.jpg

For each asset its mesh is made as export.py makes it, written to a .glb, read by trimesh and drawn in six views. Prints a
table of PSNR, SSIM and the intersection over the union of outlines, and draws both side by side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
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
from exporting.mesh.raster import cover, nearest
from exporting.mesh.views import project
from gaussian_renderer import Gaussians, render
from scene.asset import load_asset
from scene.axes import Y_UP, turn
from scene.cameras import Cameras, orbit
from utils.media import Row, rows_sheet, to_float, write_jpeg

AZIMUTHS = (20.0, 80.0, 140.0, 200.0, 260.0, 320.0)
POLAR = (75.0, 55.0, 75.0, 55.0, 75.0, 100.0)
RADIUS, FIELD_OF_VIEW, SIZE = 5.2, 0.5, 256
SHOWN = (0, 2, 3)
"""Views in the picture."""


class Likeness(NamedTuple):
    """Means over views: PSNR in dB, SSIM in [-1, 1], intersection over union of outlines in [0, 1]."""

    psnr: float
    ssim: float
    outlines: float


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
    size, (height, width) = camera.width, texture.shape[:2]
    seen = project(camera, torch.from_numpy(np.asarray(vertices)).float())
    x, y, z = (values.double().numpy() for values in seen)
    covered = cover(np.stack([x, y], axis=-1)[faces], size, size)
    # 1/z is linear on the screen, and so is anything linear in space divided by z (Blinn, 1992).
    corners = covered.weights / z[faces[covered.faces]]
    inverse = corners.sum(axis=1)
    front = nearest(covered, 1 / inverse, size, size)
    hit = front >= 0
    weights = (corners / inverse[:, None])[front[hit]]
    place = (uv[faces[covered.faces[front[hit]]]] * weights[:, :, None]).sum(axis=1)
    texel = np.stack([place[:, 0] * width, (1 - place[:, 1]) * height], axis=1) - 0.5
    grid = torch.from_numpy(texel / [(width - 1) / 2, (height - 1) / 2] - 1).float()
    image = to_float(np.array(texture))[None]
    colors = F.grid_sample(image, grid[None, None], align_corners=True, padding_mode="border")[0, :, 0]
    rgb = torch.ones(3, size, size)
    rgb[:, torch.from_numpy(hit)] = colors
    return Drawn(rgb, hit)


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
    truth, alpha = out.rgb.clamp(0, 1), out.alpha[:, 0].numpy() >= 0.5
    psnr, ssim, outlines = [], [], []
    for view, (rgb, covered) in enumerate(drawn):
        psnr.append(-10 * float(torch.log10((rgb - truth[view]).square().mean())))
        a, b = truth[view].numpy(), rgb.numpy()
        ssim.append(float(structural_similarity(a, b, channel_axis=0, data_range=1.0)))
        outlines.append(float((covered & alpha[view]).sum() / (covered | alpha[view]).sum()))
    return Likeness(float(np.mean(psnr)), float(np.mean(ssim)), float(np.mean(outlines))), truth


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("assets", nargs="+", type=Path, help="runs' folders, or .ply files of Gaussians")
    parser.add_argument("-o", "--output", type=Path, help="a picture, .jpg")
    given = parser.parse_args()
    cameras = orbit(AZIMUTHS, POLAR, RADIUS, FIELD_OF_VIEW, SIZE, SIZE)
    rows = []
    print("| asset | Gaussians | faces | watertight | PSNR, dB | SSIM | outlines, IoU | seconds of CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for path in given.assets:
        gaussians = load_asset(path)
        start = time.process_time()
        mesh = build_mesh(gaussians, MeshOptions())
        seconds = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mesh.glb"
            write_mesh(file, mesh)
            drawn = draw_glb(file, cameras)
        like, truth = compare(gaussians, drawn, cameras)
        name = path.name.split("-sctd")[0].replace("-", " ")
        closed = "yes" if len(mesh.open_edges) == 0 else f"no, {len(mesh.open_edges)} edges"
        print(
            f"| {name} | {len(gaussians)} | {len(mesh.faces)} | {closed} | {like.psnr:.1f} | {like.ssim:.3f} "
            f"| {like.outlines:.3f} | {seconds:.0f} |",
            flush=True,
        )
        pairs = [image for view in SHOWN for image in (truth[view], drawn[view].rgb)]
        rows.append(Row(name, torch.stack(pairs), ["Gaussians", "mesh"] * len(SHOWN)))
    if given.output:
        write_jpeg(given.output, rows_sheet(rows))


if __name__ == "__main__":
    main()
