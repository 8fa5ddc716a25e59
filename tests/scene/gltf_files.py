"""Small glTF 2.0 files for the tests, written from the specification."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
"""The corners of the unit square; the places of its vertices in a texture are such that v points down."""
PLACES = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
HALVES = np.array([0, 1, 2, 0, 2, 3], dtype=np.uint16)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
"""A picture: red and green above, blue and yellow below."""


def glb(document: dict[str, Any], binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


class Document:
    """A glTF document in the making: its JSON, `json`, and its one buffer."""

    def __init__(self, **keys: Any) -> None:
        self.binary = b""
        self.buffers: list[dict[str, Any]] = []
        """Further buffers."""
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": []} | keys

    def view(self, content: bytes, **keys: Any) -> int:
        """Add a buffer view of the bytes."""
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)} | keys
        self.json["bufferViews"].append(view)
        self.binary += content + bytes(-len(content) % 4)
        return len(self.json["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, *, pad: int = 0, **keys: Any) -> int:
        """Add an accessor of values [N] or [N, C], with `pad` bytes after each."""
        columns = 1 if values.ndim == 1 else values.shape[1]
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=171)
        view = self.view(padded.tobytes(), **({"byteStride": padded.shape[1]} if pad else {}))
        self.json["accessors"].append(
            {"bufferView": view, "componentType": COMPONENTS[values.dtype.name], "count": len(values)}
            | {"type": TYPES[columns]}
            | keys
        )
        return len(self.json["accessors"]) - 1

    def picture(self, pixels: np.ndarray = QUARTERS, kind: str = "PNG", **keys: Any) -> int:
        """Add a texture of pixels [H, W, 3]; `keys` are further ones of it."""
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, kind, **({"lossless": True} if kind == "WEBP" else {}))
        images, textures = self.json.setdefault("images", []), self.json.setdefault("textures", [])
        images.append({"bufferView": self.view(encoded.getvalue()), "mimeType": f"image/{kind.lower()}"})
        textures.append({"source": len(images) - 1} | keys)
        return len(textures) - 1

    def square(self, material: dict[str, Any] | None = None, **attributes: int) -> dict[str, Any]:
        """Return the primitive of the unit square, with a material and attributes beside its own."""
        own = {"POSITION": self.accessor(SQUARE), "TEXCOORD_0": self.accessor(PLACES)}
        primitive = {"attributes": own | attributes, "indices": self.accessor(HALVES)}
        if material is not None:
            self.json.setdefault("materials", []).append(material)
            primitive["material"] = len(self.json["materials"]) - 1
        return primitive

    def show(self, *primitives: dict[str, Any], nodes: list[dict[str, Any]] | None = None) -> Document:
        """Make a mesh of primitives, and the nodes that show it."""
        self.json["meshes"] = [{"primitives": list(primitives)}]
        self.json["nodes"] = nodes or [{"mesh": 0}]
        return self

    def encode(self) -> bytes:
        buffers = [{"byteLength": len(self.binary)}, *self.buffers]
        return glb(self.json | {"buffers": buffers}, self.binary)

    def write(self, folder: Path, name: str = "x.glb") -> str:
        (folder / name).write_bytes(self.encode())
        return str(folder / name)


def everything() -> Document:
    """Return a document that uses all that is read."""
    document = Document(samplers=[{"wrapS": 33648, "wrapT": 33071}])
    picture = document.picture(sampler=0)
    transform = {"offset": [0.5, 0], "rotation": 0.1, "scale": [2, 2], "texCoord": 0}
    info = {"index": picture, "texCoord": 1, "extensions": {"KHR_texture_transform": transform}}
    metallic = {
        "pbrMetallicRoughness": {"baseColorTexture": info, "baseColorFactor": [0.5, 0.5, 0.5, 1]},
        "emissiveFactor": [0, 1, 0],
        "emissiveTexture": {"index": picture},
        "alphaMode": "MASK",
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2.0}},
    }
    specular = {"diffuseFactor": [1, 1, 1, 1], "diffuseTexture": {"index": picture}}
    first = document.square(
        metallic,
        TEXCOORD_1=document.accessor((PLACES * 65535).astype(np.uint16), normalized=True),
        JOINTS_0=document.accessor(np.zeros((4, 4), np.uint8)),
        WEIGHTS_0=document.accessor(np.tile(np.array([255, 0, 0, 0], np.uint8), (4, 1)), normalized=True),
    )
    second = document.square(
        {"extensions": {"KHR_materials_pbrSpecularGlossiness": specular}},
        POSITION=document.accessor((SQUARE * 32767).astype(np.int16), pad=2, normalized=True),
        COLOR_0=document.accessor(np.full((4, 4), 60000, np.uint16), normalized=True),
    )
    indices = {"bufferView": document.view(np.array([1], np.uint16).tobytes()), "componentType": 5123}
    values = {"bufferView": document.view(np.array([2, 0, 0], np.float32).tobytes())}
    sparse = {"count": 1, "indices": indices, "values": values}
    document.json["accessors"].append({"componentType": 5126, "count": 4, "type": "VEC3", "sparse": sparse})
    second["targets"] = [{"POSITION": len(document.json["accessors"]) - 1}]
    copies = {"attributes": {"TRANSLATION": document.accessor(SQUARE)}}
    nodes = [
        {"children": [1, 2], "rotation": [0, 0, 0, 1]},
        {"mesh": 0, "skin": 0},
        {"translation": [1, 2, 3], "mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": copies}},
    ]
    document.show(first, second, nodes=nodes).json["meshes"][0]["weights"] = [0.5]
    document.json |= {"skins": [{"joints": [2]}], "scenes": [{"nodes": [0]}], "scene": 0}
    return document
