"""`.stl` and `.mesh.ply`: meshes for printers, scanners' programs and research."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement

from exporting.mesh.gltf import png
from exporting.mesh.textured import TexturedMesh
from utils.files import atomic_path, write_bytes


def write_stl(path: Path, mesh: TexturedMesh) -> str:
    """Write the triangles, in binary."""
    vertices, faces = mesh.merged
    write_bytes(path, trimesh.exchange.stl.export_stl(trimesh.Trimesh(vertices, faces, process=False)))
    return "colours"


def write_ply(path: Path, mesh: TexturedMesh, name: str, merge: bool) -> str:
    """Write a .ply file of faces, in binary.

    Its vertices have places in the texture, which lies beside it as a .png; merged ones have the texture's colours.
    """
    columns: dict[str, NDArray[np.generic]]
    if merge:
        vertices, faces = mesh.merged
        colors = merged_colors(mesh)
        columns = dict(zip(("x", "y", "z"), vertices.T)) | dict(zip(("red", "green", "blue"), colors.T))
        comments = []
    else:
        vertices, faces = mesh.vertices, mesh.faces
        # Here, too, a texture begins at the bottom.
        places = np.stack([mesh.places[:, 0], 1 - mesh.places[:, 1]])
        columns = dict(zip(("x", "y", "z", "nx", "ny", "nz"), (*vertices.T, *mesh.normals.T)))
        columns |= dict(zip(("s", "t"), places))
        comments = [f"TextureFile {name}.png"]
        write_bytes(path.with_name(f"{name}.png"), png(mesh.texture))
    rows = np.empty(len(vertices), dtype=[(key, column.dtype.str) for key, column in columns.items()])
    for key, column in columns.items():
        rows[key] = column
    corners = np.empty(len(faces), dtype=[("vertex_indices", "<i4", (3,))])
    corners["vertex_indices"] = faces
    elements = [PlyElement.describe(rows, "vertex"), PlyElement.describe(corners, "face")]
    with atomic_path(path) as temporary:
        PlyData(elements, text=False, byte_order="<", comments=comments).write(str(temporary))
    return "the texture, of which vertices have the colours" if merge else ""


def merged_colors(mesh: TexturedMesh) -> NDArray[np.uint8]:
    """Colours [W, 3] of the merged vertices: of each the mean of the texels at the places that it has."""
    size = len(mesh.texture)
    column, row = (np.clip(np.floor(mesh.places.T * size), 0, size - 1)).astype(int)
    count = int(mesh.shared.max()) + 1
    sums = np.stack(
        [
            np.bincount(mesh.shared, weights=channel, minlength=count)
            for channel in mesh.texture[row, column].T
        ]
    )
    return np.rint(sums / np.bincount(mesh.shared, minlength=count)).astype(np.uint8).T
