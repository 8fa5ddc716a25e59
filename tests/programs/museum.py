"""What each program makes of each file, against our own render: the cells of the table, and how good each must be."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from exported import draw
from PIL import Image

from exporting.formats import MESHES, SPLATS, WriteOptions, write_mesh, write_splats
from exporting.mesh.build import build_mesh
from exporting.mesh.options import MeshOptions
from exporting.mesh.textured import TexturedMesh
from exporting.targets import TARGETS, frame_for
from gaussian_renderer import render
from scene.asset import Asset
from scene.axes import OURS, Y_UP, turn
from scene.cameras import Cameras, orbit
from scene.gaussian_model import GaussianModel
from tests.programs.assets import plain, stretched
from tests.programs.browser import HERE, SIZE, Picture, page_as_published, pictures, served
from tests.programs.cells import Cell, missed
from tests.programs.kernels import OURS as OUR_KERNEL
from tests.programs.kernels import drawn
from tests.programs.reasons import reasons_for
from tests.viewer.chromium import chromium

FIELD_OF_VIEW = 35.0
"""In degrees; the pages have it, too."""
ASSETS = {"plain": plain, "stretched": stretched}
PACKAGES = {
    "three": "three",
    "spark": "@sparkjsdev/spark",
    "playcanvas": "playcanvas",
    "supersplat": "@playcanvas/supersplat-viewer",
    "babylon": "babylonjs",
    "mkkellogg": "@mkkellogg/gaussian-splats-3d",
    "cesium": "cesium",
}
"""Packages of npm by program: what `--for` calls it, but for mkkellogg's viewer, which takes what three.js takes."""
BLENDER = "blender"
PRESETS = {"mkkellogg": "three"}
FINE = 3
"""Drawn pixels along a side of one pixel."""
SUFFIXES = {"mkkellogg": (".ply", ".splat"), "supersplat": (".ply", ".compressed.ply", ".sog")}
"""Formats where a program takes fewer than its preset writes: supersplat-viewer fewer than the editor."""


def suffixes(program: str) -> tuple[str, ...]:
    return SUFFIXES.get(program) or tuple(TARGETS[PRESETS.get(program, program)])


def version(program: str, modules: Path) -> str:
    """Version of a program that is installed."""
    return str(json.loads((modules / PACKAGES[program] / "package.json").read_text())["version"])


def cameras(size: int = SIZE) -> Cameras:
    """From the front's right, from behind and above, and from the left and below."""
    return orbit([30.0, 150.0, 270.0], [70.0, 50.0, 100.0], 2.8, math.radians(FIELD_OF_VIEW), size, size)


@torch.no_grad()
def own_pictures(gaussians: GaussianModel, seen_by: Cameras) -> list[Picture]:
    """Our renders over white."""
    rgb = render(gaussians, seen_by, torch.ones(3)).rgb.clamp(0, 1)
    return [image.permute(1, 2, 0).double().numpy() for image in rgb]


def recipes() -> list[str]:
    """Pages of docs/recipes.md: that of Spark, and that of three.js."""
    text = (HERE.parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    return [part.partition("```")[0] for part in text.split("```html\n")[1:]]


def published(page: str, folder: Path, modules: Path) -> Picture:
    """Picture that a page of docs/recipes.md shows of the first asset."""
    (folder / "page.html").write_text(page)
    write_splats(folder / "car.spz", Asset(plain(), OURS), frame_for("spark", ".spz"))
    with chromium() as browser, served(files=folder) as host:
        return page_as_published(browser, host, "page.html", modules)


def camera_of_recipes() -> Cameras:
    height, distance = 0.7, 2.7
    polar, radius = math.degrees(math.atan2(distance, height)), math.hypot(height, distance)
    return orbit(0.0, polar, radius, math.radians(FIELD_OF_VIEW), SIZE, SIZE)


def compared(shown: list[Picture], own: list[Picture]) -> tuple[float, float]:
    """The least PSNR and the least intersection over union of outlines of all views. Outlines are what is not white."""
    psnr = [-10 * math.log10(float(np.square(a - b).mean()) + 1e-12) for a, b in zip(shown, own)]
    masks = [(a.min(axis=-1) < 0.9, b.min(axis=-1) < 0.9) for a, b in zip(shown, own)]
    return min(psnr), min(float((a & b).sum() / (a | b).sum()) for a, b in masks)


def drawn_mesh(mesh: TexturedMesh) -> list[Picture]:
    """Our own drawings of a mesh, each pixel the mean of `FINE`² ones."""
    seen_by, upwards = cameras(SIZE * FINE), mesh.places * [1, -1] + [0, 1]
    found = []
    for view in range(len(seen_by)):
        fine = draw(mesh.vertices, mesh.faces, upwards, mesh.texture, seen_by[view : view + 1]).rgb
        found.append(torch.nn.functional.avg_pool2d(fine, FINE).permute(1, 2, 0).double().numpy())
    return found


class Museum:
    """Files of both assets in a folder, and what programs make of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.assets = {name: make() for name, make in ASSETS.items()}
        self.own = {name: own_pictures(gaussians, cameras()) for name, gaussians in self.assets.items()}
        self.meshes: dict[str, TexturedMesh] = {}
        self.known: dict[object, list[Picture]] = {}

    def write(self, program: str, suffix: str, name: str) -> Path:
        """Write what `--for` writes of an asset; .mesh.ply for Blender with colours at its vertices."""
        path = self.folder / f"{program}-{name}{suffix}"
        frame = frame_for(PRESETS.get(program, program), suffix)
        if suffix in SPLATS:
            write_splats(path, Asset(self.assets[name], OURS), frame)
        else:
            if name not in self.meshes:
                self.meshes[name] = build_mesh(self.assets[name], MeshOptions())
            write_mesh(path, self.meshes[name], frame, how=WriteOptions(merge=suffix == ".mesh.ply"))
        return path

    def cell(self, program: str, suffix: str, name: str, shown: list[Picture]) -> Cell:
        """Compare pictures, and keep them beside the file; where they miss, also with what is known of the cell."""
        for view, picture in enumerate(shown):
            pixels = Image.fromarray((picture * 255).round().astype(np.uint8))
            pixels.save(self.folder / f"{program}-{name}{suffix}.{view}.png")
        cell = Cell(program, suffix, name, *compared(shown, self.own[name]))
        if not missed(cell) or not reasons_for(cell):
            return cell
        psnr, outline = compared(shown, self.known_pictures(cell))
        return replace(cell, known_psnr=psnr, known_outline=outline)

    def known_pictures(self, cell: Cell) -> list[Picture]:
        """Our own pictures with what is known of a cell's program and format, or of the mesh."""
        if cell.suffix in MESHES:
            key: object = (cell.asset, cell.suffix == ".stl")
            mesh = self.meshes[cell.asset]
            if cell.suffix == ".stl":
                mesh = replace(mesh, texture=np.full_like(mesh.texture, 128))
            if key not in self.known:
                self.known[key] = drawn_mesh(mesh)
            return self.known[key]
        gaussians, reasons = self.assets[cell.asset], reasons_for(cell)
        kernel = next((reason.kernel for reason in reasons if reason.kernel), OUR_KERNEL)
        degrees = [reason.sh_degree for reason in reasons if reason.sh_degree is not None]
        degree = min([gaussians.sh_degree, *degrees])
        key = (cell.asset, kernel, degree)
        if key not in self.known:
            self.known[key] = drawn(gaussians, cameras(), kernel, degree)
        return self.known[key]

    def browse(self, program: str, modules: Path) -> Iterator[Cell]:
        """Cells of a program of npm."""
        turned = (cameras().positions.double() @ turn(Y_UP).T).tolist()
        views = [{"position": position, "target": [0.0, 0.0, 0.0]} for position in turned]
        with (
            chromium() as browser,
            served(pages=HERE / "pages", node_modules=modules, files=self.folder) as host,
        ):
            for suffix in suffixes(program):
                for name in self.assets:
                    file = self.write(program, suffix, name).name
                    try:
                        yield self.cell(
                            program, suffix, name, pictures(browser, host, program, file, suffix, views)
                        )
                    except RuntimeError as error:
                        yield Cell(program, suffix, name, fault=str(error))

    def blend(self) -> Iterator[Cell]:
        """Cells of Blender. Of points there is no picture: their place is compared."""
        frame = turn(frame_for(BLENDER, ".stl").axes)
        for suffix in suffixes(BLENDER):
            for name, gaussians in self.assets.items():
                try:
                    shown = self.in_blender(self.write(BLENDER, suffix, name), cameras())
                except RuntimeError as error:
                    yield Cell(BLENDER, suffix, name, fault=str(error))
                    continue
                if shown:
                    yield self.cell(BLENDER, suffix, name, shown)
                else:
                    box = torch.tensor(json.loads((self.folder / "box.json").read_text())["box"])
                    points = gaussians.means.double() @ frame.T
                    right = torch.allclose(box, torch.stack(points.aminmax(dim=0)).float(), atol=1e-4)
                    yield Cell(BLENDER, suffix, name, fault="" if right else "points lie elsewhere")

    def in_blender(self, file: Path, seen_by: Cameras, **options: str | bool) -> list[Picture]:
        """Pictures that Blender, in a process of its own, draws of a mesh; nothing of points. The box goes to box.json.

        Raises RuntimeError with what Blender reports.
        """
        frame = turn(frame_for(BLENDER, ".stl").axes)
        paths = [self.folder / f"blender-{view}.png" for view in range(len(seen_by))]
        for path in paths:
            path.unlink(missing_ok=True)
        job = {
            "file": str(file),
            "box": str(self.folder / "box.json"),
            "pictures": [str(path) for path in paths],
            "positions": (seen_by.positions.double() @ frame.T).tolist(),
            "field_of_view": FIELD_OF_VIEW,
            "size": SIZE,
        }
        (self.folder / "job.json").write_text(json.dumps(job | options))
        command = [sys.executable, str(HERE / "blender_script.py"), str(self.folder / "job.json")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return [np.asarray(Image.open(path).convert("RGB")) / 255 for path in paths if path.is_file()]

    def blender_recipe(self) -> dict[str, Picture]:
        """Pictures, from the front, of what docs/recipes.md teaches of Blender."""
        glb, front = (
            self.write(BLENDER, ".glb", "plain"),
            orbit(0.0, 75.0, 2.8, math.radians(FIELD_OF_VIEW), SIZE, SIZE),
        )
        lit = self.folder / "blender-lit.glb"
        write_mesh(lit, self.meshes["plain"], frame_for(BLENDER, ".glb"), how=WriteOptions(lit=True))
        return {
            "Standard": self.in_blender(glb, front)[0],
            "AgX": self.in_blender(glb, front, view_transform="AgX")[0],
            "unlit, with a lamp": self.in_blender(glb, front, lamp=True)[0],
            "--lit, with a lamp": self.in_blender(lit, front, lamp=True)[0],
        }


def as_json(cells: list[Cell]) -> str:
    return json.dumps([asdict(cell) for cell in cells], indent=1)
