"""The container of glTF 2.0: its JSON, its buffers, and the extensions that it needs."""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct
from typing import Any
from urllib.parse import unquote

from scene.meshes.files_beside import find_beside

MAX_COUNT = 30_000_000
"""Largest count of numbers, vectors or matrices in a header; more are taken for a damaged file."""
DRACO, MESHOPT, KTX2 = "KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu"
COMPRESSIONS = (DRACO, MESHOPT, "KHR_meshopt_compression")
READ = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "KHR_materials_pbrSpecularGlossiness", KTX2),
    *("KHR_materials_unlit", "KHR_materials_emissive_strength", "EXT_mesh_gpu_instancing", *COMPRESSIONS),
    *("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds"),
}
"""Extensions whose effect is read, or whose lack is reported where it matters."""
HARMLESS = ("KHR_materials_", "EXT_materials_", "KHR_lights_", "EXT_lights_", "KHR_animation_", "KHR_xmp")
"""Beginnings of names of extensions without which points and base colours are the same."""


class GltfFile:
    """A .glb or .gltf file."""

    def __init__(self, path: str) -> None:
        """Read the file's JSON. Raises ValueError, one sentence, for a file that cannot be read as glTF 2.0."""
        self.path = path
        self.document, self._binary = _chunks(path)
        self._buffers: dict[int, bytes] = {}
        for index in range(len(self.entries("buffers"))):
            if self._has_data(index):
                self._buffer(index)

    def entries(self, kind: str) -> list[Any]:
        """Return all entries of a kind, such as 'nodes'."""
        found = self.document.get(kind, [])
        if not isinstance(found, list):
            raise ValueError(f"its {kind!r} is no list")
        return found

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Return the entry of a kind that a number names; ValueError if it is not there."""
        entries = self.entries(kind)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise ValueError(f"it names {kind}[{index}], which is not there")
        if not isinstance(entries[index], dict):
            raise ValueError(f"its {kind}[{index}] is no object")
        return entries[index]

    def view(self, index: Any) -> tuple[memoryview, int | None]:
        """Return the bytes of a buffer view and its stride in bytes, or None."""
        view = self.entry("bufferViews", index)
        start, length = view.get("byteOffset", 0), view["byteLength"]
        for name in COMPRESSIONS:
            if name in view.get("extensions", {}) and not self._has_data(view["buffer"]):
                raise ValueError(compressed(self.path, name))
        buffer = self._buffer(view["buffer"])
        if not (start >= 0 and length >= 0 and start + length <= len(buffer)):
            raise ValueError(f"its bufferViews[{index}] ends beyond its buffer of {len(buffer)} bytes")
        return memoryview(buffer)[start : start + length], view.get("byteStride")

    def uri(self, uri: str) -> bytes | None:
        """Return the bytes of a data URI, or of the file beside this one that a URI names; None if it is missing."""
        if uri.startswith("data:"):
            head, _, data = uri.partition(",")
            try:
                return base64.b64decode(data) if head.endswith(";base64") else unquote(data).encode("latin-1")
            except (binascii.Error, UnicodeEncodeError) as error:
                raise ValueError(f"it has a data URI that cannot be decoded ({error})") from error
        found = find_beside(self.path, unquote(uri)) or find_beside(self.path, uri)
        return None if found is None else found.read_bytes()

    def _has_data(self, index: Any) -> bool:
        """Whether a buffer holds bytes, and not only the place for what is decompressed."""
        return "uri" in self.entry("buffers", index) or (index == 0 and self._binary is not None)

    def _buffer(self, index: Any) -> bytes:
        buffer = self.entry("buffers", index)
        if index not in self._buffers:
            uri = buffer.get("uri")
            content = self._binary if uri is None and index == 0 else None if uri is None else self.uri(uri)
            if content is None:
                what = "its binary chunk" if uri is None else repr(uri[:100])
                raise ValueError(f"{self.path!r} cannot be read: it needs {what}, which is not there.")
            self._buffers[index] = content
        return self._buffers[index]


def compressed(path: str, name: str) -> str:
    """Write the sentence for a file that an extension has compressed."""
    return f"{path!r} is compressed with {name}, but it must be plain: export it without."


def _chunks(path: str) -> tuple[dict[str, Any], bytes | None]:
    """The JSON and the binary chunk of a file, by what it begins with rather than by its name."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if not content:
            raise ValueError("it is empty")
        document, binary = (
            _binary_chunks(content) if content.startswith(b"glTF") else (json.loads(content), None)
        )
        version = str(document["asset"]["version"])
        counts = [int(accessor["count"]) for accessor in document.get("accessors", [])]
        used, required = (set(document.get(kind, [])) for kind in ("extensionsUsed", "extensionsRequired"))
        accessors = document.get("accessors", [])
        plain = bool(accessors) and all(
            "bufferView" in accessor or "sparse" in accessor for accessor in accessors
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it lacks {reason}"
        elif not content.startswith((b"glTF", b"{")) and content:
            reason = f"it does not start as a glTF file does ({reason})"
        raise ValueError(f"{path!r} cannot be read as glTF 2.0: {reason}.") from error
    if not version.startswith("2"):
        raise ValueError(f"{path!r} is glTF {version[:20]}, but only glTF 2.0 is read: convert it first.")
    if min(counts, default=0) < 0 or sum(counts) > MAX_COUNT:
        size = os.path.getsize(path)
        raise ValueError(
            f"{path!r} claims {sum(counts)} values in {size} bytes, but at most {MAX_COUNT} are read."
        )
    for name in COMPRESSIONS:
        # A file that does not require its compression has plain data beside the compressed.
        if name in required or (name in used and not plain):
            raise ValueError(compressed(path, name))
    unknown = sorted(name for name in required - READ if not str(name).startswith(HARMLESS))
    if unknown:
        raise ValueError(
            f"{path!r} requires {', '.join(unknown)[:200]}, which is not read: export it without."
        )
    return document, binary


def _binary_chunks(content: bytes) -> tuple[dict[str, Any], bytes | None]:
    if len(content) < 20:
        raise ValueError(f"it has {len(content)} bytes, but its header takes 20")
    version, claimed, length, kind = struct.unpack_from("<III4s", content, 4)
    if version != 2 or kind != b"JSON":
        raise ValueError(f"it is a binary glTF file of version {version}, or its first chunk is no JSON")
    end = 20 + length
    if max(claimed, end) > len(content):
        raise ValueError(f"it claims {max(claimed, end)} bytes and has {len(content)}")
    document = json.loads(content[20:end])
    if len(content) < end + 8:
        return document, None
    length, kind = struct.unpack_from("<I4s", content, end)
    if end + 8 + length > len(content):
        raise ValueError(f"its binary chunk claims {length} bytes and has {len(content) - end - 8}")
    return document, content[end + 8 : end + 8 + length] if kind == b"BIN\0" else None
