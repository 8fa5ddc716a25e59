"""`.splat.glb`: glTF 2.0 with KHR_gaussian_splatting, as its release candidate of 2026 has it. Programs that do not know
the extension show coloured points."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporting.glb import Buffer
from scene.splats.gltf import DISPLAY, EXTENSION
from scene.splats.table import Floats, Splats
from utils.axes import note

POINTS = 0
LOOK = {
    "kernel": "ellipse",
    # The render's colours are those that the screen shows: blended as they are, not as light.
    "colorSpace": DISPLAY,
    "projection": "perspective",
    "sortingMethod": "cameraDistance",
}
"""How Gaussians are drawn; the method of sorting is the only one that the text has."""


def encode(splats: Splats, name: str) -> bytes:
    """The file, every number in full: positions, linear scales, quaternions (x, y, z, w), opacities, harmonics. Node and
    mesh get the name."""
    buffer = Buffer()
    color = np.column_stack([linear(splats.colors), splats.opacities])
    attributes = {
        "POSITION": buffer.add(splats.means, bounds=True),
        "COLOR_0": buffer.add(np.rint(color * 65535).astype(np.uint16), normalized=True),
        f"{EXTENSION}:ROTATION": buffer.add(splats.rotations[:, [1, 2, 3, 0]]),
        f"{EXTENSION}:SCALE": buffer.add(np.exp(splats.log_scales)),
        f"{EXTENSION}:OPACITY": buffer.add(splats.opacities),
    }
    first = 0
    for degree in range(splats.sh_degree + 1):
        for order in range(2 * degree + 1):
            key = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            attributes[key] = buffer.add(splats.harmonics[:, first + order])
        first += 2 * degree + 1
    return buffer.encode(
        document_of(name, attributes, LOOK, [EXTENSION]),
        extras=None if splats.axes is None else note(splats.axes),
    )


def document_of(
    name: str, attributes: dict[str, int], extension: dict[str, Any], used: list[str]
) -> dict[str, Any]:
    """The glTF document of one primitive of Gaussians."""
    primitive = {"attributes": attributes, "mode": POINTS, "extensions": {EXTENSION: extension}}
    return {
        "extensionsUsed": used,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [primitive]}],
    }


def linear(colors: Floats) -> Floats:
    """Light (IEC 61966-2-1) of sRGB colours, clamped to [0, 1]: what COLOR_0 holds."""
    c = np.clip(colors, 0, 1)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
