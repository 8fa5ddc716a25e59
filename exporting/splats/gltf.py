"""`.splat.glb`: glTF 2.0 with KHR_gaussian_splatting, as its release candidate of 2026 has it. Programs that do not know
the extension show coloured points."""

from __future__ import annotations

import numpy as np

from exporting.glb import Buffer
from scene.splats.gltf import DISPLAY, EXTENSION
from scene.splats.table import Floats, Splats
from utils.axes import note

POINTS = 0


def encode(splats: Splats) -> bytes:
    """The file, every number in full: positions, linear scales, quaternions (x, y, z, w), opacities, harmonics."""
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
            name = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            attributes[name] = buffer.add(splats.harmonics[:, first + order])
        first += 2 * degree + 1
    # The render's colours are those that the screen shows: blended as they are, not as light.
    extension = {"kernel": "ellipse", "colorSpace": DISPLAY}
    extension |= {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {"attributes": attributes, "mode": POINTS, "extensions": {EXTENSION: extension}}
    return buffer.encode(
        {
            "extensionsUsed": [EXTENSION],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
        },
        extras=None if splats.axes is None else note(splats.axes),
    )


def linear(colors: Floats) -> Floats:
    """Light (IEC 61966-2-1) of sRGB colours, clamped to [0, 1]: what COLOR_0 holds."""
    c = np.clip(colors, 0, 1)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
