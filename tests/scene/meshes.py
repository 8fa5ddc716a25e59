"""Small meshes for the tests, written by trimesh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float64)
"""The corners of the unit square in the plane z = 0; its texture coordinates are its x and y."""
HALVES = np.array([[0, 1, 2], [0, 2, 3]])


def box(size: Sequence[float]) -> trimesh.Trimesh:
    return trimesh.creation.box(extents=size)


def square(**keys: Any) -> trimesh.Trimesh:
    return trimesh.Trimesh(SQUARE, HALVES, process=False, **keys)


def painted(material: Any, **attributes: Any) -> trimesh.Trimesh:
    """The square with a material."""
    return square(visual=trimesh.visual.TextureVisuals(uv=SQUARE[:, :2], material=material, **attributes))


def checkerboard(cells: int = 4, pixels: int = 8) -> tuple[Image.Image, np.ndarray]:
    """An image of cells × cells squares of random colours, and the colours [cells, cells, 3], bottom row first."""
    colors = np.random.default_rng(0).integers(256, size=(cells, cells, 3), dtype=np.uint8)
    rows = colors[::-1].repeat(pixels, axis=0).repeat(pixels, axis=1)
    return Image.fromarray(np.ascontiguousarray(rows)), colors


def exported(mesh: Any, path: Path) -> str:
    """Write a mesh by trimesh, with its materials beside it, and return the path of the file."""
    mesh.export(str(path), file_type=path.suffix[1:].lower())
    image = (
        getattr(getattr(mesh.visual, "material", None), "image", None) if hasattr(mesh, "visual") else None
    )
    if path.suffix == ".ply" and image is not None:
        # trimesh reads the name of a texture, but does not write it.
        image.save(path.with_suffix(".png"))
        named = f"comment TextureFile {path.stem}.png\nelement vertex".encode()
        path.write_bytes(path.read_bytes().replace(b"element vertex", named, 1))
    return str(path)


def by_another_program(path: str) -> str:
    """Rewrite a .glb file as if it were not trimesh's, so that its colours count as linear."""
    content = Path(path).read_bytes()
    assert content.count(b"github.com/mikedh/trimesh") == 1
    Path(path).write_bytes(content.replace(b"github.com/mikedh/trimesh", b"example.com/other/program"))
    return path
