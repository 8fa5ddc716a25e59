"""Meshes as coloured points: any file that trimesh reads, sampled uniformly by area."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from scene.gltf import GLTF_SUFFIXES, check_gltf
from scene.mesh_colors import colors_at, colors_of_vertices
from scene.point_cloud import PointCloud, thin, without_broken

MAX_SIZE = 10_000_000
"""Largest number of faces, or vertices, in all, instances counted; no start can be made of more."""
GREY = 0.5
"""Colour of a mesh's uncoloured places, where others have colours."""


@dataclass(frozen=True)
class Part:
    """A mesh or cloud of a scene.

    Its vertices [V, 3] are in the scene's coordinates, NaN where they are not finite in float32. It has faces
    [F, 3], and the colours that trimesh knows.
    """

    vertices: np.ndarray
    faces: np.ndarray
    geometry: Any

    def areas(self) -> np.ndarray:
        """Double areas [F] of the faces; NaN where a vertex is."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def sample_mesh(path: str, count: int, rng: torch.Generator) -> PointCloud:
    """Sample `count` points on the surfaces of a file, uniform by area, with its vertex, face, texture or
    material colours.

    A scene's meshes are where its nodes put them. Faces at vertices that are not finite are left out, with a
    warning; a file without any area gives its vertices, at most `count`, with another. Raises
    FileNotFoundError, or ValueError in one sentence for a file that cannot be read or holds nothing.
    """
    parts, linear = _parts(path)
    areas = np.concatenate([part.areas() for part in parts])
    if broken := int(np.isnan(areas).sum()):
        message = "%r: %d of %d faces have vertices that are not finite and are left out."
        logging.warning(message, path, broken, len(areas))
    cumulative = np.cumsum(np.nan_to_num(areas))
    if len(cumulative) == 0 or cumulative[-1] == 0:
        return _vertices(path, parts, linear, count, rng)
    # Stratified: a draw from each of `count` equal pieces of the area.
    offset, r1, r2 = torch.rand(3, count, generator=rng, dtype=torch.float64).numpy()
    drawn = np.searchsorted(cumulative, (np.arange(count) + offset) / count * cumulative[-1], side="right")
    drawn = np.minimum(drawn, np.searchsorted(cumulative, cumulative[-1]))  # rounding may reach the end
    # The half of the unit square beyond its diagonal is folded back onto the triangle.
    beyond = r1 + r2 > 1
    r1, r2 = np.where(beyond, 1 - r1, r1), np.where(beyond, 1 - r2, r2)
    weights = np.stack([1 - r1 - r2, r1, r2], axis=1)

    points, colors, start = np.empty((count, 3)), np.full((count, 3), np.nan), 0
    for part in parts:
        # Draws are in order, so those of a part are a slice.
        here = slice(*np.searchsorted(drawn, [start, start + len(part.faces)]))
        rows, start = drawn[here] - start, start + len(part.faces)
        if len(rows) == 0:
            continue  # no face, or none with an area
        points[here] = np.einsum("nk,nkd->nd", weights[here], part.vertices[part.faces[rows]])
        found = colors_at(part.geometry, part.faces, rows, weights[here], linear)
        if found is not None:
            colors[here] = found
    return _cloud(points, colors)


def _vertices(path: str, parts: list[Part], linear: bool, count: int, rng: torch.Generator) -> PointCloud:
    """The vertices of all parts, at most `count`."""
    points = np.concatenate([part.vertices for part in parts])
    colors = [
        np.full(part.vertices.shape, np.nan) if found is None else found
        for part in parts
        for found in [colors_of_vertices(part.geometry, linear)]
    ]
    cloud = without_broken(_cloud(points, np.concatenate(colors)), path)
    logging.warning("%r has no face with an area: the start is its %d vertices.", path, len(cloud))
    return thin(cloud, count, rng)


def _cloud(points: np.ndarray, colors: np.ndarray) -> PointCloud:
    """Float32 tensors of points [N, 3] and colours [N, 3], NaN where there are none."""
    tensor = torch.from_numpy(points.astype(np.float32))
    if np.isnan(colors).all():
        return PointCloud(tensor, None)
    return PointCloud(tensor, torch.from_numpy(np.nan_to_num(colors, nan=GREY).astype(np.float32)))


def _parts(path: str) -> tuple[list[Part], bool]:
    """Parts of a file, with at least one vertex in all, and whether its colours are linear."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path!r} is not there, but it must be a mesh.")
    linear = path.lower().endswith(GLTF_SUFFIXES) and check_gltf(path)
    try:
        scene = trimesh.load_scene(path, process=False)
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        _check_size([scene.geometry[name] for _, name in placed])
        parts = [_part(scene.geometry[name], matrix) for matrix, name in placed]
    except Exception as error:  # trimesh's readers raise whatever their parsing runs into
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path!r} cannot be read as a mesh: {reason}.") from error
    if sum(len(part.vertices) for part in parts) == 0:
        raise ValueError(f"{path!r} holds neither faces nor vertices, but it must be a mesh.")
    return parts, linear


def _check_size(geometries: list[Any]) -> None:
    """Check the size of all that nodes show, before a node's copy of its mesh is made.

    Raises ValueError if it is too much.
    """
    for kind in ("vertices", "faces"):
        total = sum(len(getattr(geometry, kind, ())) for geometry in geometries)
        if total > MAX_SIZE:
            raise ValueError(f"it shows {total} {kind}, but a start uses at most {MAX_SIZE}")


def _part(geometry: Any, matrix: np.ndarray) -> Part:
    vertices = trimesh.transform_points(np.asarray(geometry.vertices, dtype=np.float64), matrix)
    vertices[~(np.abs(vertices) <= np.finfo(np.float32).max)] = np.nan
    faces = np.asarray(getattr(geometry, "faces", ()), dtype=np.int64).reshape(-1, 3)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"a face has vertex {faces.max()}, but there are {len(vertices)}")
    return Part(vertices, faces, geometry)
