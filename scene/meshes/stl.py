"""STL files, by trimesh."""

from __future__ import annotations

import os

import numpy as np
import trimesh

from scene.meshes.colors import Paint
from scene.meshes.files_beside import report_unused
from scene.meshes.shapes import NO_FACES, Placed, Shape


def read_stl(path: str) -> list[Placed]:
    """Read the solids of an STL file, binary or ASCII; raises whatever trimesh does."""
    if os.path.getsize(path) == 0:
        return []
    scene = trimesh.load_scene(path, process=False)
    placed, unused = [], []
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if np.any(getattr(geometry, "face_attributes", {}).get("stl", 0)):
            unused.append("the attributes of faces, which some programs use for colours")
        faces = np.asarray(getattr(geometry, "faces", NO_FACES), dtype=np.int64).reshape(-1, 3)
        shape = Shape(np.asarray(geometry.vertices, dtype=np.float64), faces, Paint())
        placed.append((shape, np.asarray(matrix, dtype=np.float64)))
    report_unused(path, unused)
    return placed
