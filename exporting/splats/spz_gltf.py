"""`.spz.glb`: SPZ in glTF 2.0, by KHR_gaussian_splatting_compression_spz_2, as Cesium reads it, and its 3D Tiles.

The extension's draft names the axes left, up, front for what is packed; Cesium, its only reader, takes the numbers of the
SPZ file as they are. So they are in glTF's own axes.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from exporting.glb import FLOAT, UNSIGNED_BYTE, Buffer
from exporting.splats import spz
from exporting.splats.gltf import LOOK, document_of
from scene.splats.gltf import EXTENSION, PACKED
from scene.splats.table import Splats
from utils.axes import note

REACH = 3.0
"""Standard deviations that the bounding volume takes in."""


def encode(splats: Splats, name: str) -> bytes:
    """The file: an SPZ file of version 3, and accessors without a buffer for what it holds."""
    buffer = Buffer()
    view = buffer.add_view(spz.encode(splats))
    count = len(splats)
    low, high = splats.means.min(axis=0).tolist(), splats.means.max(axis=0).tolist()
    attributes = {
        "POSITION": buffer.add_empty(FLOAT, count, "VEC3", min=low, max=high),
        "COLOR_0": buffer.add_empty(UNSIGNED_BYTE, count, "VEC4", normalized=True),
        f"{EXTENSION}:SCALE": buffer.add_empty(FLOAT, count, "VEC3"),
        f"{EXTENSION}:ROTATION": buffer.add_empty(FLOAT, count, "VEC4"),
    }
    # Cesium reads the constant colour from COLOR_0.
    for degree in range(1, splats.sh_degree + 1):
        for order in range(2 * degree + 1):
            key = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            attributes[key] = buffer.add_empty(FLOAT, count, "VEC3")
    extension = {**LOOK, "extensions": {PACKED: {"bufferView": view}}}
    used = [EXTENSION, PACKED]
    document = document_of(name, attributes, extension, used) | {"extensionsRequired": used}
    return buffer.encode(document, extras=None if splats.axes is None else note(splats.axes))


def tileset(splats: Splats, content: str) -> str:
    """A tileset.json of 3D Tiles 1.1, with which Cesium draws the file `content` as Gaussians: alone it would not."""
    reach = REACH * np.exp(splats.log_scales).max(axis=1, keepdims=True)
    low, high = (splats.means - reach).min(axis=0), (splats.means + reach).max(axis=0)
    x, y, z = ((low + high) / 2).tolist()
    a, b, c = ((high - low) / 2).tolist()
    used = [EXTENSION, PACKED]
    tiles: dict[str, Any] = {
        "asset": {"version": "1.1"},
        "extensionsUsed": ["3DTILES_content_gltf"],
        "extensions": {"3DTILES_content_gltf": {"extensionsUsed": used, "extensionsRequired": used}},
        "geometricError": 2 * max(a, b, c),
        "root": {
            # Tiles have z up: glTF's (x, y, z) is their (x, -z, y).
            "boundingVolume": {"box": [x, -z, y, a, 0, 0, 0, c, 0, 0, 0, b]},
            "geometricError": 0,
            "refine": "REPLACE",
            "content": {"uri": content},
        },
    }
    return json.dumps(tiles, indent=1) + "\n"
