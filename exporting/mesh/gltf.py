"""`.glb`: a textured mesh in glTF 2.0, unlit by default, since its texture holds the light that the asset was made
with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exporting.glb import Buffer
from exporting.mesh.textured import TexturedMesh

UNLIT = "KHR_materials_unlit"
LINEAR, LINEAR_MIPMAPS, CLAMP = 9729, 9987, 33071
METALNESS, ROUGHNESS = 0.0, 1.0
"""A matt surface: gloss is in the texture already."""


def encode(mesh: TexturedMesh, name: str, lit: bool) -> bytes:
    """The file; its mesh is in the axes that it has. Node, mesh and material get the name."""
    buffer = Buffer()
    attributes = {
        "POSITION": buffer.add(mesh.vertices, bounds=True),
        "NORMAL": buffer.add(mesh.normals),
        "TEXCOORD_0": buffer.add(mesh.places),
    }
    indices = buffer.add(mesh.faces.astype(np.uint32).ravel(), indices=True)
    image = buffer.add_view(png(mesh.texture))
    # Programs without the extension light this surface, too.
    surface = {
        "baseColorTexture": {"index": 0},
        "metallicFactor": METALNESS,
        "roughnessFactor": ROUGHNESS,
    }
    material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface}
    primitive = {"attributes": attributes, "indices": indices, "material": 0}
    return buffer.encode(
        {
            **({} if lit else {"extensionsUsed": [UNLIT]}),
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"name": name, "mesh": 0}],
            "meshes": [{"name": name, "primitives": [primitive]}],
            "materials": [material if lit else material | {"extensions": {UNLIT: {}}}],
            "textures": [{"source": 0, "sampler": 0}],
            "images": [{"name": name, "bufferView": image, "mimeType": "image/png"}],
            "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
        }
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
