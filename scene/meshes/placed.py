"""The mesh of a start, where the run puts it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from config.camera_params import GenerateCamParams
from scene.initialize import axes_of, fit_of_start
from scene.meshes.colors import Decode
from scene.meshes.files_beside import Picture
from scene.meshes.sample import GREY, PICTURES, Part, places, read_parts, sample_parts
from scene.point_cloud import upright

Array = np.ndarray


@dataclass(frozen=True)
class PlacedMesh:
    """A mesh in world units.

    Attributes:
        name: of its file.
        parts: what it consists of.
        vertices: [V, 3] of all parts, one after the other.
        faces: [F, 3] of those, all with an area.
        rows: [F] the number of each among the faces of all parts.
    """

    name: str
    parts: list[Part]
    vertices: Array
    faces: Array
    rows: Array
    decode: Decode

    def colors(self, faces: Array, weights: Array) -> Array:
        """Return colours [M, 3] in [0, 1] at `weights` [M, 3] of the corners of `faces` [M], grey where there are none."""
        order = np.argsort(faces, kind="stable")
        found = np.empty((len(faces), 3))
        found[order] = places(self.parts, self.rows[faces[order]], weights[order], self.decode).colors
        return np.nan_to_num(found, nan=GREY)


def load_mesh_of_start(params: GenerateCamParams, rng: torch.Generator) -> PlacedMesh:
    """Load the mesh that `init_shape` names, at the place where its points are put by the generator of the start.

    Raises ValueError and FileNotFoundError, one sentence each, as `sample_mesh` does.
    """
    path = params.init_shape
    axes = axes_of(path, params.init_axes)
    read = read_parts(path)
    fit = fit_of_start(sample_parts(read, path, params.init_num_pts, rng).upright(axes).points, params)

    def moved(part: Part) -> Part:
        points = upright(torch.from_numpy(part.vertices), axes)
        return replace(part, vertices=(points if fit is None else fit(points)).numpy())

    parts = [moved(part) for part in read]
    first = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, first)])
    rows = np.flatnonzero(np.nan_to_num(np.concatenate([part.areas() for part in parts])) > 0)
    decode: Decode = lru_cache(maxsize=PICTURES)(Picture.decode)
    vertices = np.concatenate([part.vertices for part in parts])
    return PlacedMesh(Path(path).name, parts, vertices, faces[rows], rows, decode)
