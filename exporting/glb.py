"""Binary glTF 2.0: accessors and images gathered into one buffer, and the container around them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

GENERATOR = "export.py"
UNSIGNED_BYTE, UNSIGNED_SHORT, UNSIGNED_INT, FLOAT = 5121, 5123, 5125, 5126
COMPONENTS = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.uint16): UNSIGNED_SHORT,
    np.dtype(np.uint32): UNSIGNED_INT,
}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
ATTRIBUTES, INDICES = 34962, 34963
"""Uses of a buffer view (glTF 2.0, section 5.11)."""


class Buffer:
    """Bytes of a file, and the accessors and views into them, in the order in which they were added."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(
        self, values: np.ndarray, *, normalized: bool = False, bounds: bool = False, indices: bool = False
    ) -> int:
        """Add an accessor of values [N] or [N, C], float32, uint16 or uint32; returns its number.

        Matrices are rows of 16 numbers, column by column. normalized: whole numbers stand for shares of the greatest; bounds: note least and greatest, as
        POSITION must.
        """
        columns = 1 if values.ndim == 1 else values.shape[1]
        use = INDICES if indices else None if TYPES[columns] == "MAT4" else ATTRIBUTES
        view = self.add_view(np.ascontiguousarray(values).tobytes(), use)
        accessor: dict[str, Any] = {
            "bufferView": view,
            "componentType": COMPONENTS[values.dtype],
            "count": len(values),
            "type": TYPES[columns],
        }
        if normalized:
            accessor["normalized"] = True
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_empty(self, component: int, count: int, kind: str, **rest: Any) -> int:
        """Add an accessor without a view, whose values an extension gives; returns its number."""
        self.accessors.append({"componentType": component, "count": count, "type": kind, **rest})
        return len(self.accessors) - 1

    def add_view(self, content: bytes, target: int | None = None) -> int:
        """Add a buffer view of any bytes, such as those of an image; returns its number."""
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append(view if target is None else view | {"target": target})
        self.content += content
        self.content += bytes(-len(self.content) % 4)
        return len(self.views) - 1

    def encode(self, document: dict[str, Any], extras: dict[str, Any] | None = None) -> bytes:
        """The file of a glTF document, whose asset, buffers, views and accessors are filled in.

        extras: what the asset notes beside its generator.
        """
        asset = {"version": "2.0", "generator": GENERATOR}
        whole = {
            "asset": asset if extras is None else asset | {"extras": extras},
            **document,
            "buffers": [{"byteLength": len(self.content)}],
            "bufferViews": self.views,
            "accessors": self.accessors,
        }
        header = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
        header += b" " * (-len(header) % 4)
        chunks = struct.pack("<I4s", len(header), b"JSON") + header
        chunks += struct.pack("<I4s", len(self.content), b"BIN\0") + bytes(self.content)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
