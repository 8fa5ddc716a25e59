"""Build a mesh with a texture from Gaussians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from exporting.mesh.bake import bake
from exporting.mesh.fusion import fuse, outline_level, surface
from exporting.mesh.options import MeshOptions
from exporting.mesh.rim import fitted
from exporting.mesh.simplify import open_edges, simplified
from exporting.mesh.textured import TexturedMesh
from exporting.mesh.unwrap import unwrap
from exporting.mesh.views import box_of
from gaussian_renderer import Gaussians


def build_mesh(
    gaussians: Gaussians, options: MeshOptions, on_step: Callable[[str], None] = lambda doing: None
) -> TexturedMesh:
    """A mesh that looks like the Gaussians. `on_step` is given what was done after each of the options'
    steps.

    Raises ValueError, one sentence, for Gaussians without a surface.
    """
    box = box_of(gaussians)
    field = fuse(gaussians, box, options.resolution, options.views, lambda: on_step("shape"))
    vertices, faces = surface(field, outline_level(field, gaussians, box))
    vertices, faces = simplified(vertices, faces, options.faces)
    vertices = fitted(gaussians, box, vertices, faces, options.views, lambda: on_step("outlines"))
    normals = np.asarray(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)
    gaps = vertices[open_edges(faces)].mean(axis=1)  # [E, 2, 3] are the ends of [E] edges
    origin, faces, places = unwrap(vertices, faces, options.texture)
    on_step("unwrapping")
    vertices, normals = vertices[origin], normals[origin]
    texture = bake(
        gaussians,
        box,
        vertices,
        normals,
        faces,
        places,
        options.texture,
        options.views,
        lambda: on_step("texture"),
    )
    return TexturedMesh(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        places,
        faces,
        texture,
        gaps.astype(np.float32),
        origin,
    )
