"""Meshes as coloured points: sampled uniformly by area."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from scene.meshes.colors import Decode, Paint
from scene.meshes.files_beside import Picture
from scene.meshes.shapes import Placed, Shape
from scene.point_cloud import PointCloud, thin, without_broken

MAX_SIZE = 10_000_000
"""Largest number of faces, or vertices, in all, instances counted; no start can be made of more."""
GREY = 0.5
"""Colour of a mesh's uncoloured places, where others have colours."""
PICTURES = 4
"""Decoded textures that are kept while others are."""


@dataclass(frozen=True)
class Part:
    """A shape of a scene.

    Its vertices [V, 3] are in the scene's coordinates, NaN where they are not finite in float32. It has faces
    [F, 3] and what colours it.
    """

    vertices: np.ndarray
    faces: np.ndarray
    paint: Paint

    def across(self, faces: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Normals [F, 3] of all or some faces, as long as these have double areas; NaN where a vertex is."""
        a, b, c = (self.vertices[self.faces[faces, corner]] for corner in range(3))
        return np.cross(b - a, c - a)

    def areas(self) -> np.ndarray:
        """Double areas [F] of the faces; NaN where a vertex is."""
        return np.linalg.norm(self.across(), axis=1)


def sample_mesh(path: str, count: int, rng: torch.Generator) -> PointCloud:
    """Sample `count` points on the surfaces of a file, uniform by area, with its vertex, face, texture or
    material colours and the normals of its faces.

    A scene's meshes are where its nodes put them. Faces at vertices that are not finite are left out, with a
    warning; a file without any area gives its vertices, at most `count`, with another. Raises
    FileNotFoundError, or ValueError in one sentence for a file that cannot be read or holds nothing.
    """
    return sample_parts(read_parts(path), path, count, rng)


def sample_parts(parts: list[Part], path: str, count: int, rng: torch.Generator) -> PointCloud:
    """Sample the parts that `read_parts` has read from a file, as `sample_mesh` does."""
    decode: Decode = lru_cache(maxsize=PICTURES)(Picture.decode)
    areas = np.concatenate([part.areas() for part in parts])
    if broken := int(np.isnan(areas).sum()):
        message = "%r: %d of %d faces have vertices that are not finite and are left out."
        logging.warning(message, path, broken, len(areas))
    cumulative = np.cumsum(np.nan_to_num(areas))
    if len(cumulative) == 0 or cumulative[-1] == 0:
        return _vertices(path, parts, decode, count, rng)
    # Stratified: a draw from each of `count` equal pieces of the area.
    offset, r1, r2 = torch.rand(3, count, generator=rng, dtype=torch.float64).numpy()
    drawn = np.searchsorted(cumulative, (np.arange(count) + offset) / count * cumulative[-1], side="right")
    drawn = np.minimum(drawn, np.searchsorted(cumulative, cumulative[-1]))  # rounding may reach the end
    # The half of the unit square beyond its diagonal is folded back onto the triangle.
    beyond = r1 + r2 > 1
    r1, r2 = np.where(beyond, 1 - r1, r1), np.where(beyond, 1 - r2, r2)
    weights = np.stack([1 - r1 - r2, r1, r2], axis=1)

    found = places(parts, drawn, weights, decode)
    return replace(
        _cloud(found.points, found.colors), normals=torch.from_numpy(found.normals.astype(np.float32))
    )


class Places(NamedTuple):
    """Points [M, 3] on the faces of a scene, their colours [M, 3], NaN where they have none, and unit normals [M, 3]."""

    points: np.ndarray
    colors: np.ndarray
    normals: np.ndarray


def places(parts: list[Part], faces: np.ndarray, weights: np.ndarray, decode: Decode) -> Places:
    """Look up the places at `weights` [M, 3] of the corners of `faces` [M], which count through all parts and ascend.

    decode: gives a picture's pixels.
    """
    points, normals = np.empty((2, len(faces), 3))
    colors, start = np.full((len(faces), 3), np.nan), 0
    for part in parts:
        # Faces are in order, so those of a part are a slice.
        here = slice(*np.searchsorted(faces, [start, start + len(part.faces)]))
        rows, start = faces[here] - start, start + len(part.faces)
        if len(rows) == 0:
            continue  # no face, or none with an area
        points[here] = np.einsum("nk,nkd->nd", weights[here], part.vertices[part.faces[rows]])
        across = part.across(rows)
        normals[here] = across / np.linalg.norm(across, axis=1, keepdims=True)
        interpolate = _interpolation(part.faces[rows], weights[here])
        found = part.paint.colors(interpolate, rows, len(rows), decode)
        if found is not None:
            colors[here] = found
    return Places(points, colors, normals)


def _interpolation(corners: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Interpolation of values of vertices [V, C] at points [M, C], with weights [M, 3] of corners [M, 3]."""
    return lambda values: np.einsum("nk,nkd->nd", weights, values[corners])


def _vertices(path: str, parts: list[Part], decode: Decode, count: int, rng: torch.Generator) -> PointCloud:
    """The vertices of all parts, at most `count`."""
    points = np.concatenate([part.vertices for part in parts])
    colors = [
        np.full(part.vertices.shape, np.nan) if found is None else found
        for part in parts
        for found in [part.paint.colors(lambda values: values, None, len(part.vertices), decode)]
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


def read_parts(path: str) -> list[Part]:
    """Read the parts of a file, with at least one vertex in all. Raises as `sample_mesh` does."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path!r} is not there, but it must be a mesh.")
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are left out and counted later
            placed = _read(path)
            _check_size([shape for shape, _ in placed])
            parts = [_part(shape, matrix) for shape, matrix in placed]
    except Exception as error:  # readers raise whatever their parsing runs into
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(repr(path)):
            raise ValueError(f"{reason}.") from error
        if isinstance(error, KeyError):
            reason = f"it lacks {reason}"
        elif isinstance(error, TypeError | AttributeError):
            reason = f"it is not as its format has it ({reason})"
        raise ValueError(f"{path!r} cannot be read as a mesh: {reason}.") from error
    if sum(len(part.vertices) for part in parts) == 0:
        raise ValueError(f"{path!r} holds neither faces nor vertices, but it must be a mesh.")
    bare = sum(len(part.vertices) for part in parts if not len(part.faces))
    if bare and any(len(part.faces) for part in parts):
        logging.warning("%r: %d points and ends of lines beside the faces are not used.", path, bare)
    return parts


def _read(path: str) -> list[Placed]:
    """The shapes of a file by the end of its name, and where they are."""
    # Imported where they are asked for: a start need not wait for the readers of other formats.
    if path.lower().endswith((".glb", ".gltf")):
        from scene.meshes.gltf import read_gltf

        return read_gltf(path)
    if path.lower().endswith(".obj"):
        from scene.meshes.obj import read_obj

        return read_obj(path)
    if path.lower().endswith(".ply"):
        from scene.meshes.ply import read_mesh_ply

        return read_mesh_ply(path)
    if path.lower().endswith(".npz"):
        from scene.meshes.npz import read_npz

        return read_npz(path)
    from scene.meshes.stl import read_stl

    return read_stl(path)


def _check_size(shapes: list[Shape]) -> None:
    """Check the size of all that is shown, before an instance's copy of its shape is made.

    Raises ValueError if it is too much.
    """
    for kind in ("vertices", "faces"):
        total = sum(len(getattr(shape, kind)) for shape in shapes)
        if total > MAX_SIZE:
            raise ValueError(f"it shows {total} {kind}, but a start uses at most {MAX_SIZE}")


def _part(shape: Shape, matrix: np.ndarray) -> Part:
    vertices = shape.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    vertices[~(np.abs(vertices) <= np.finfo(np.float32).max)] = np.nan
    faces = shape.faces
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"a face has vertex {faces.max()}, but there are {len(vertices)}")
    return Part(vertices, faces, shape.paint)
