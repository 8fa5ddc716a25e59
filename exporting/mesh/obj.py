"""`.obj`: a textured mesh in Wavefront's text format, with its material, `.mtl`, and its texture, `.png`, beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporting.mesh.gltf import METALNESS, ROUGHNESS, png
from exporting.mesh.textured import TexturedMesh
from utils.files import write_bytes, write_text


def write(path: Path, mesh: TexturedMesh, name: str) -> None:
    """Write the three files, the .obj last; the mesh is in the axes that it has. Object and material get the name."""
    # Readers end a name at the first blank.
    name = re.sub(r"\s", "_", name)
    texture, material = path.with_name(f"{name}.png"), path.with_name(f"{name}.mtl")
    write_bytes(texture, png(mesh.texture))
    # Illumination model 1: light falls on a surface that does not shine. Model 0, without light, is refused by Blender.
    surface = f"Ka 0 0 0\nKd 1 1 1\nKs 0 0 0\nPr {ROUGHNESS:g}\nPm {METALNESS:g}\nillum 1\n"
    write_text(material, f"newmtl {name}\n{surface}map_Kd {texture.name}\n")
    # Here a texture begins at the bottom.
    places = np.stack([mesh.places[:, 0], 1 - mesh.places[:, 1]], axis=1)
    corners = "\n".join(f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in mesh.faces + 1)
    lines = [
        f"mtllib {material.name}",
        f"o {name}",
        _rows("v", mesh.vertices),
        _rows("vt", places),
        _rows("vn", mesh.normals),
    ]
    write_text(path, "\n".join([*lines, f"usemtl {name}", corners, ""]))


def _rows(kind: str, values: NDArray[np.floating]) -> str:
    return "\n".join(f"{kind} " + " ".join(f"{number:.6g}" for number in row) for row in values.tolist())
