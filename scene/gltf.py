"""Checks of a glTF file before it is read."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

GLTF_SUFFIXES = (".glb", ".gltf")
MAX_COUNT = 30_000_000
"""Largest count of numbers, vectors or matrices in a header; more are taken for a damaged file."""
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")


def check_gltf(path: str) -> bool:
    """Return whether the colours in a .glb or .gltf file, other than its textures, are linear.

    They are in glTF 2.0 (sections 3.7.2.1 and 3.9.2), but trimesh writes them as it has them, in sRGB, and
    signs its files.

    Raises ValueError, one sentence, for a file that claims more than it can hold, or that is compressed. By
    glTF 2.0's section 3.6.2.1 an accessor without a buffer is filled with zeros, as many as it claims. So are
    those of a compression that the reader does not know.
    """
    try:
        header = _header(path)
        counts = [int(accessor["count"]) for accessor in header.get("accessors", [])]
        extensions = set(header.get("extensionsUsed", []))
        generator = str(header["asset"].get("generator"))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path!r} cannot be read as glTF 2.0: {reason}.") from error
    if min(counts, default=0) < 0 or sum(counts) > MAX_COUNT:
        raise ValueError(
            f"{path!r} claims {sum(counts)} values in {os.path.getsize(path)} bytes, but at most {MAX_COUNT} are read."
        )
    for name in COMPRESSIONS:
        if name in extensions:
            raise ValueError(f"{path!r} is compressed with {name}, but it must be plain: export it without.")
    return "trimesh" not in generator


def _header(path: str) -> Any:
    """The JSON of the file."""
    with open(path, "rb") as file:
        if path.lower().endswith(".gltf"):
            return json.loads(file.read())
        magic, version, claimed, length, kind = struct.unpack("<4sIII4s", file.read(20))
        size = os.path.getsize(path)
        if magic != b"glTF" or version != 2 or kind != b"JSON":
            raise ValueError("it does not start as a binary glTF file does")
        if max(claimed, length + 20) > size:
            raise ValueError(f"it claims {max(claimed, length + 20)} bytes and has {size}")
        return json.loads(file.read(length))
