"""The colours of a mesh as trimesh has read it: of its vertices, faces, textures or materials."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

Array = np.ndarray
MAX_PIXELS = 8192 * 8192
"""Largest texture in pixels: a file of a few kilobytes can claim any number."""


def colors_at(geometry: Any, faces: Array, rows: Array, weights: Array, linear: bool) -> Array | None:
    """Return sRGB colours [M, 3] in [0, 1] at points of a trimesh.Trimesh, or None if it has none.

    Point i is at weights[i] [M, 3], barycentric, of face rows[i] [M] of `faces` [F, 3]. `linear` is true if
    colours of vertices and materials are linear (see `gltf.check_gltf`); textures are always sRGB.
    """
    visual = geometry.visual
    corners = faces[rows]

    def interpolated(values: Array) -> Array:
        return np.einsum("nk,nkd->nd", weights, values[corners])

    if visual.kind == "texture":
        uv = _of_vertices(visual.uv, geometry)
        painted = _of_vertices(visual.vertex_attributes.get("color"), geometry)
        return _material_colors(
            visual.material,
            None if uv is None else interpolated(uv),
            None if painted is None else interpolated(_unit(painted)),
            len(rows),
            linear,
        )
    if visual.kind == "face":
        colors = _unit(visual.face_colors)[rows]
    elif visual.kind == "vertex":
        colors = interpolated(_unit(visual.vertex_colors))
    else:
        return None
    return to_srgb(colors) if linear else colors


def colors_of_vertices(geometry: Any, linear: bool) -> Array | None:
    """Return sRGB colours [V, 3] in [0, 1] of the vertices of a trimesh.Trimesh or trimesh.PointCloud, or None."""
    values = _of_vertices(getattr(geometry.visual, "vertex_colors", None), geometry)
    if values is None or geometry.visual.kind != "vertex":
        return None
    return to_srgb(_unit(values)) if linear else _unit(values)


def _of_vertices(values: Any, geometry: Any) -> Array | None:
    """Return `values` as an array with a row for each vertex; None if they are no such thing."""
    array = None if values is None else np.asarray(values)
    return array if array is not None and array.ndim == 2 and len(array) == len(geometry.vertices) else None


def _unit(colors: Any) -> Array:
    """Scale the first three channels of colours [..., 3 or 4] to [0, 1]; whole numbers count to the top of
    their type."""
    array = np.asarray(colors)[..., :3]
    if np.issubdtype(array.dtype, np.integer):
        return array / np.iinfo(array.dtype).max
    return np.clip(np.nan_to_num(array.astype(np.float64)), 0, 1)


def _material_colors(
    material: Any, uv: Array | None, painted: Array | None, count: int, linear: bool
) -> Array | None:
    """Return colours [count, 3] of a material at texture coordinates `uv` [count, 2].

    `painted` [count, 3] are the colours of the vertices. glTF multiplies base colour, texture and the vertices'
    colours, where they are linear. Else a texture hides the rest: materials of .obj files are written so, and
    trimesh gives any texture a grey base colour.
    """
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    texels = None if uv is None or image is None else _texels(image, uv)
    if linear:
        factor = getattr(material, "baseColorFactor", None)
        colors = np.ones((count, 3)) if factor is None else np.tile(_unit(factor), (count, 1))
        for factors in (painted, None if texels is None else to_linear(texels)):
            colors = colors if factors is None else colors * factors
        return to_srgb(colors)
    if texels is None:
        return np.tile(_unit(material.main_color), (count, 1)) if painted is None else painted
    return texels


def _texels(image: Any, uv: Array) -> Array | None:
    """Pixels [M, 3] of a PIL image at uv [M, 2]; (0, 0) is its lower left, and it repeats beyond [0, 1].

    None, with a warning, if it cannot be decoded.
    """
    try:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
        pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever their parsing runs into
        logging.warning("A texture cannot be read (%s): the material's plain colour is used.", error)
        return None
    inside = np.nan_to_num(np.where((uv >= 0) & (uv <= 1), uv, uv % 1))
    height, width = pixels.shape[:2]
    column, row = np.minimum(inside * [width, height], [width - 1, height - 1]).astype(np.int64).T
    return pixels[height - 1 - row, column] / 255


def to_srgb(linear: Array) -> Array:
    """Return the sRGB values of linear ones in [0, 1] (IEC 61966-2-1)."""
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    )


def to_linear(srgb: Array) -> Array:
    """Return the linear values of sRGB ones in [0, 1], the inverse of to_srgb."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
