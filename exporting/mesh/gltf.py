"""`.glb`: a textured mesh in glTF 2.0, unlit by default, since its texture holds the light that the asset was made
with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from exporting.glb import Buffer
from exporting.mesh.textured import TexturedMesh
from scene.skeleton.skeleton import Skeleton

UNLIT = "KHR_materials_unlit"
LINEAR, LINEAR_MIPMAPS, CLAMP = 9729, 9987, 33071
METALNESS, ROUGHNESS = 0.0, 1.0
"""A matt surface: gloss is in the texture already."""


def encode(mesh: TexturedMesh, name: str, lit: bool) -> bytes:
    """The file; its mesh is in the axes that it has. Node, mesh and material get the name. A mesh with a rig has a skin."""
    buffer = Buffer()
    attributes = {
        "POSITION": buffer.add(mesh.vertices, bounds=True),
        "NORMAL": buffer.add(_unit(mesh.normals)),
        "TEXCOORD_0": buffer.add(mesh.places),
    }
    skin: dict[str, Any] = {}
    joints: list[dict[str, Any]] = []
    if mesh.rig is not None:
        attributes["JOINTS_0"] = buffer.add(mesh.rig.joints)
        attributes["WEIGHTS_0"] = buffer.add(mesh.rig.weights, normalized=True)
        skin, joints = _skin(mesh.rig.skeleton, name, buffer)
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
            "scenes": [{"nodes": [0, 1] if joints else [0]}],
            "nodes": [{"name": name, "mesh": 0, **({"skin": 0} if joints else {})}, *joints],
            **({"skins": [skin]} if joints else {}),
            "meshes": [{"name": name, "primitives": [primitive]}],
            "materials": [material if lit else material | {"extensions": {UNLIT: {}}}],
            "textures": [{"source": 0, "sampler": 0}],
            "images": [{"name": name, "bufferView": image, "mimeType": "image/png"}],
            "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
        }
    )


def _unit(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normals [V, 3] of unit length, as glTF has them: a vertex between faces that look apart has none of its own."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0.5, normals, np.array([0, 0, 1], dtype=np.float32))


def _skin(skeleton: Skeleton, name: str, buffer: Buffer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A skin, and its nodes from number 1 on: their common root, then the joints, each from its parent's axes."""
    first, count = 2, len(skeleton.names)
    worlds = np.tile(np.eye(4), (count, 1, 1))
    worlds[:, :3, :3], worlds[:, :3, 3] = skeleton.turns, skeleton.positions
    nodes: list[dict[str, Any]] = [{"name": f"{name} skeleton", "children": []}]
    for joint, parent in enumerate(skeleton.parents):
        local = worlds[joint] if parent < 0 else np.linalg.inv(worlds[parent]) @ worlds[joint]
        nodes.append(
            {
                "name": skeleton.names[joint],
                "translation": local[:3, 3].tolist(),
                "rotation": Rotation.from_matrix(local[:3, :3]).as_quat().tolist(),
            }
        )
    for joint, parent in enumerate(skeleton.parents):
        nodes[parent + 1 if parent >= 0 else 0].setdefault("children", []).append(first + joint)
    inverse = np.linalg.inv(worlds).transpose(0, 2, 1).reshape(count, 16)
    # The last row of an inverse is exact in glTF: 0, 0, 0, 1.
    inverse[:, [3, 7, 11, 15]] = 0, 0, 0, 1
    matrices = buffer.add(inverse.astype(np.float32))
    return {
        "inverseBindMatrices": matrices,
        "skeleton": 1,
        "joints": [*range(first, first + count)],
    }, nodes


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
