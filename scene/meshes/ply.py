"""Meshes in PLY files: polygons with colours of vertices or faces, or with textures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from plyfile import PlyData

from scene.meshes.colors import Array, Paint, Texture
from scene.meshes.files_beside import picture_beside, report_unused
from scene.meshes.shapes import Placed, Shape, fans
from scene.ply import read_ply
from scene.ply_colors import colors_of
from scene.points_ply import coordinates, unused_properties

CORNERS = ("vertex_indices", "vertex_index")
PLACES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
"""Names of the texture coordinates of vertices."""
CORNER_PLACES, TEXTURE_NUMBER = "texcoord", "texnumber"
"""Names of the texture coordinates of a face's corners, and of its texture's number."""
TEXTURE = "texturefile"
"""Word of a comment in which programs name a texture."""


def read_mesh_ply(path: str) -> list[Placed]:
    """Read the polygons of a PLY file, one shape for each texture.

    A texture hides the colours of vertices, and those hide the colours of faces. Raises ValueError, one
    sentence, for a file that is no PLY file or lacks a property.
    """
    data = _elements(path)
    if "vertex" not in data:
        raise ValueError(f"{path!r} has no element 'vertex', but its faces are made of vertices.")
    vertices, polygons = data["vertex"].data, data["face"].data
    name = next((name for name in CORNERS if name in (polygons.dtype.names or ())), None)
    if name is None:
        raise ValueError(f"{path!r} lacks the face property 'vertex_indices', which is needed here.")
    points = coordinates(path, vertices).astype(np.float64)
    corners, sizes = _flat(polygons[name])
    if len(corners) and not 0 <= corners.min() <= corners.max() < len(points):
        raise ValueError(f"a face has vertex {corners.max()}, but there are {len(points)}")
    triangles, polygon = fans(sizes)
    colors, used = colors_of(path, vertices)
    face_colors, face_used = colors_of(path, polygons)
    paint = Paint(vertices=colors, faces=None if face_colors is None else face_colors[polygon])
    pictures = [line.split(None, 1)[1] for line in data.comments if _names_texture(line)]

    uv, uv_used = _places(vertices) if pictures else (None, set())
    at_corners = _corner_places(polygons, sizes) if pictures else None
    if at_corners is not None:
        points, uv, face_used = points[corners], at_corners, face_used | {CORNER_PLACES}
        paint = replace(paint, vertices=None if colors is None else colors[corners])
    faces = triangles if at_corners is not None else corners[triangles]
    if uv is not None:
        face_used |= {TEXTURE_NUMBER}
    face_left = [left for left in polygons.dtype.names or () if left not in face_used | {name}]
    others = [
        element.name for element in data if element.name not in ("vertex", "face") and len(element.data)
    ]
    report_unused(
        path,
        [
            f"vertex property {left!r}"
            for left in unused_properties(vertices.dtype.names or (), used | uv_used)
        ]
        + [f"face property {left!r}" for left in face_left]
        + [f"element {other!r}" for other in others]
        + [f"texture {picture!r}, in which nothing has a place" for picture in pictures if uv is None],
    )
    if uv is None:
        return [(Shape(points, faces, paint), np.eye(4))]
    number = np.zeros(len(faces), dtype=np.int64)
    if TEXTURE_NUMBER in (polygons.dtype.names or ()):
        number = np.asarray(polygons[TEXTURE_NUMBER]).astype(np.int64)[polygon]
    return _by_texture(path, Shape(points, faces, paint), uv, np.clip(number, 0, len(pictures) - 1), pictures)


def _elements(path: str) -> PlyData:
    """All elements; a binary file of triangles alone is read many times faster."""
    triangles = dict.fromkeys(CORNERS, 3) | {CORNER_PLACES: 6}
    try:
        return read_ply(path, {"face": triangles})
    except ValueError as error:
        if "unexpected list length" not in str(error) and "early end-of-file" not in str(error):
            raise
    return read_ply(path)


def _flat(lists: Array) -> tuple[Array, Array]:
    """All values of lists, one after the other, as int64, and the length of each list."""
    if lists.dtype != object:
        rows = lists.reshape(len(lists), -1)
        return rows.reshape(-1).astype(np.int64), np.full(len(rows), rows.shape[1])
    sizes = np.array([len(row) for row in lists], dtype=np.int64)
    return np.concatenate([*lists, []]).astype(np.int64), sizes


def _places(vertices: Array) -> tuple[Array | None, set[str]]:
    """Texture coordinates [V, 2] of vertices, and the names of the properties."""
    for pair in PLACES:
        if set(pair) <= set(vertices.dtype.names or ()):
            return np.stack([np.asarray(vertices[name], dtype=np.float64) for name in pair], axis=1), set(
                pair
            )
    return None, set()


def _corner_places(polygons: Array, sizes: Array) -> Array | None:
    """Texture coordinates [C, 2] of the corners of all faces; NaN for faces that have other than one for each."""
    if CORNER_PLACES not in (polygons.dtype.names or ()):
        return None
    rows = [np.asarray(row, dtype=np.float64).reshape(-1) for row in polygons[CORNER_PLACES]]
    fitting = [
        row if len(row) == 2 * size else np.full(2 * size, np.nan) for row, size in zip(rows, sizes.tolist())
    ]
    return np.concatenate([*fitting, []]).reshape(-1, 2)


def _names_texture(comment: str) -> bool:
    return comment.lower().startswith(TEXTURE) and len(comment.split(None, 1)) == 2


def _by_texture(path: str, shape: Shape, uv: Array, number: Array, names: list[str]) -> list[Placed]:
    """A shape of the faces of each texture, whose number [F] is given."""
    placed = []
    for index, name in enumerate(names):
        rows = number == index
        picture = picture_beside(path, name) if rows.any() else None
        texture = None if picture is None else Texture(picture, uv)
        faces = None if shape.paint.faces is None else shape.paint.faces[rows]
        paint = replace(shape.paint, faces=faces, texture=texture)
        placed.append((Shape(shape.vertices, shape.faces[rows], paint), np.eye(4)))
    return placed
