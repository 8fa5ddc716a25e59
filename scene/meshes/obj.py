"""Wavefront OBJ files."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np

from scene.meshes.colors import Array, Paint, Texture
from scene.meshes.files_beside import find_beside, plural, report_unused
from scene.meshes.mtl import Material, read_mtl
from scene.meshes.shapes import NO_FACES, Placed, Shape, fans
from scene.ply_colors import unit_range

LINES = {"l": "line", "p": "point", "curv": "curve", "curv2": "curve", "surf": "surface"}
POLYPAINT = "#MRGB"
"""ZBrush's comment: eight hexadecimal digits for each vertex, of which the last six are its colour."""
WHITE = 1.0 - 1e-3
"""Least channel of a vertex that some programs write where none was painted."""
CHUNK = 65_536
"""Lines that are split into words at a time."""


class _Text:
    """Statements of a file, by kind."""

    def __init__(self, text: str) -> None:
        self.vertices: list[str] = []
        self.places: list[str] = []
        self.faces: list[str] = []
        """Corners of each face, counted from 1."""
        self.materials: list[str] = []
        """The material of each face."""
        self.libraries: list[str] = []
        self.painted: list[str] = []
        self.unused: Counter[str] = Counter()
        material = ""
        for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
            words = line.split(None, 1)
            if not words:
                continue
            key, rest = words[0], words[1] if len(words) == 2 else ""
            if key == "v":
                self.vertices.append(rest)
            elif key == "vt":
                self.places.append(rest)
            elif key in ("f", "fo"):
                self._face(rest)
                self.materials.append(material)
            elif key == "usemtl":
                material = rest.strip()
            elif key == "mtllib":
                self.libraries.append(rest.strip())
            elif key == POLYPAINT:
                self.painted += re.findall(r"[0-9a-fA-F]{8}", rest)
            elif key in LINES:
                self.unused[LINES[key]] += 1

    def _face(self, rest: str) -> None:
        if "-" in rest:
            rest = " ".join(self._from_one(word) for word in rest.split())
        self.faces.append(rest)

    def _from_one(self, word: str) -> str:
        """Count a corner from 1 that counts back from the last vertex, or place, so far."""
        numbers = word.split("/")
        for index, known in enumerate((self.vertices, self.places)):
            if index < len(numbers) and numbers[index].startswith("-"):
                numbers[index] = str(len(known) + 1 + int(numbers[index]))
        return "/".join(numbers[:2])


def _corners(faces: list[str]) -> tuple[Array, Array, Array]:
    """Vertices [C] and places [C] of the corners of faces, counted from 0, and the number of corners of each [P].

    A corner that has no place has -1. Raises ValueError for a corner that is no number.
    """
    numbers, sizes = [np.empty((0, 2), dtype=np.int64)], []
    for start in range(0, len(faces), CHUNK):
        words = [face.partition("#")[0].split() for face in faces[start : start + CHUNK]]
        sizes += [len(row) for row in words]
        flat = [word for row in words for word in row]
        # A program writes all corners alike: v, v/vt, v//vn or v/vt/vn.
        slashes = {word.count("/") for word in flat}
        if len(slashes) == 1:
            columns = slashes.pop() + 1
            digits = "/".join(flat).replace("//", "/0/").split("/")
            if len(digits) == columns * len(flat) and "" not in digits:
                table = np.array(list(map(int, digits)), dtype=np.int64).reshape(-1, columns)
                place = table[:, 1] if columns > 1 else np.zeros(len(table), dtype=np.int64)
                numbers.append(np.stack([table[:, 0], place], axis=1))
                continue
        rows = [[int(number or 0) for number in (*word.split("/"), "0")[:2]] for word in flat]
        numbers.append(np.array(rows, dtype=np.int64).reshape(-1, 2))
    corners, places = (np.concatenate(numbers) - 1).T
    return corners, places, np.array(sizes, dtype=np.int64)


def read_obj(path: str) -> list[Placed]:
    """Read an OBJ file, with the materials that it names: one shape for each.

    A texture hides the colours of vertices, and those hide a material's plain colour. Warnings report each
    file that is missing, and what is not used. Raises ValueError for numbers that are none.
    """
    text = _Text(read_text(Path(path)))
    if not text.vertices:
        return []
    points, colors = _table(text.vertices, 0, 3), _colors(path, text)
    uv = _table(text.places, 0, 2)
    if not text.faces:
        return [(Shape(points, NO_FACES, Paint(vertices=colors)), np.eye(4))]
    unused = [plural(count, what) for what, count in text.unused.items()]
    materials = _materials(path, text.libraries, unused)
    named = list(dict.fromkeys(text.materials))
    missing = [name for name in named if name and name not in materials]
    unused += [f"material {name!r}, which no .mtl file beside it describes" for name in missing]
    corners, places, sizes = _corners(text.faces)
    if short := int((sizes < 3).sum()):
        unused.append(f"{plural(short, 'face')} of fewer than 3 corners")
    if colors is not None and any(material.plain is not None for material in materials.values()):
        if np.nanmin(colors) >= WHITE:
            colors = None
        else:
            unused.append("plain colours of materials, where vertices have colours")

    triangles, polygon = fans(sizes)
    beyond = corners[(corners < 0) | (corners >= len(points))]
    if len(beyond):
        raise ValueError(f"a face has vertex {beyond[0] + 1}, but there are 1 to {len(points)}")
    places[(places < -1) | (places >= len(uv))] = -1
    number = {name: index for index, name in enumerate(named)}
    of_triangle = np.array([number[name] for name in text.materials])[polygon]
    placed = []
    for name in named:
        rows, material = triangles[of_triangle == number[name]], materials.get(name, Material())
        shape = _shape(points, colors, uv, corners[rows], places[rows], material)
        placed.append((shape, np.eye(4)))
        if material.texture is not None and bool((places[rows] < 0).all()):
            unused.append(f"texture {material.texture.name!r}, in which nothing has a place")
    report_unused(path, unused)
    return placed


def read_text(path: Path) -> str:
    """Read a file of lines in UTF-8, or else in the letters of western Windows."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _table(lines: list[str], first: int, end: int) -> Array:
    """The words first to end, not included, of lines as numbers [L, C]; NaN where a line has not all of them."""
    table = np.full((len(lines), end - first), np.nan)
    for start in range(0, len(lines), CHUNK):
        rows = [line.partition("#")[0].split()[first:end] for line in lines[start : start + CHUNK]]
        whole = [index for index, row in enumerate(rows) if len(row) == end - first]
        if whole:
            table[np.array(whole) + start] = _floats([rows[index] for index in whole])
    return table


def _floats(rows: list[list[str]]) -> Array:
    """Words as numbers [R, C]."""
    flat = np.array(list(map(float, itertools.chain.from_iterable(rows))), dtype=np.float64)
    return flat.reshape(len(rows), -1)


def _colors(path: str, text: _Text) -> Array | None:
    """SRGB colours [V, 3] of vertices, NaN where one has none, or None."""
    colors = _table(text.vertices, 3, 6)
    if not np.isnan(colors).all():
        return unit_range(path, colors, ["of vertices"])
    if not text.painted:
        return None
    digits = [[int(word[at : at + 2], 16) for at in (2, 4, 6)] for word in text.painted[: len(colors)]]
    colors[: len(digits)] = np.array(digits) / 255
    return colors


def _materials(path: str, libraries: list[str], unused: list[str]) -> dict[str, Material]:
    """The materials of all .mtl files that are named, in one line or several."""
    materials: dict[str, Material] = {}
    for line in dict.fromkeys(libraries):
        # A line may name several files, or one with spaces.
        whole = find_beside(path, line)
        for name in [line] if whole is not None or not line else line.split():
            found = whole or find_beside(path, name)
            if found is None:
                unused.append(f"material file {name!r}, which is not there")
            else:
                materials = read_mtl(path, read_text(found), unused) | materials
    return materials


def _shape(
    points: Array, colors: Array | None, uv: Array, corners: Array, places: Array, material: Material
) -> Shape:
    """A shape of triangles whose corners [F, 3] are vertices, and have places [F, 3], -1 for none."""
    keys, faces = np.unique(corners.reshape(-1) * (len(uv) + 1) + places.reshape(-1) + 1, return_inverse=True)
    vertex, place = np.divmod(keys, len(uv) + 1)
    texture = None
    if material.texture is not None:
        lookup = np.concatenate([np.full((1, 2), np.nan), uv])
        transformed = lookup[place] * material.scale + material.offset
        texture = Texture(material.texture, transformed, (material.wrap, material.wrap))
    paint = Paint(
        plain=material.plain,
        vertices=None if colors is None else colors[vertex],
        texture=texture,
        glow=material.glow,
    )
    return Shape(points[vertex], faces.reshape(-1, 3), paint)
