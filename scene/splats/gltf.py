"""`.glb`: glTF 2.0 with KHR_gaussian_splatting, as its release candidate of 2026 has it, or with SPZ inside."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scene.axes import turned
from scene.gaussian_model import GaussianModel
from scene.splats import spz
from scene.splats.table import MAX_COUNT, Splats, log_scales_of
from utils.axes import axes_of_note

EXTENSION = "KHR_gaussian_splatting"
PACKED = "KHR_gaussian_splatting_compression_spz_2"
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
DISPLAY = "srgb_rec709_display"
"""Space of colours that are blended as the screen shows them, which is how they are rendered here."""
MAX_DEPTH = 100
"""Levels of nodes."""


def decode(name: str, content: bytes) -> Splats:
    """The Gaussians of the file `name`. Raises ValueError, one sentence, for what is none."""
    try:
        file, parts, total = _Glb(name, content), [], 0
        noted = axes_of_note(file.document["asset"].get("extras"))
        for matrix, primitive in file.primitives():
            parts.append(placed(name, file.splats(primitive), matrix))
            total += len(parts[-1])
            if total > MAX_COUNT:
                raise ValueError(
                    f"{name!r} holds more than the {MAX_COUNT} Gaussians that are read of a file."
                )
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        what = (
            f"it lacks {str(error)[:100]}"
            if isinstance(error, KeyError)
            else "its JSON does not fit together"
        )
        raise ValueError(f"{name!r} cannot be read as glTF 2.0: {what}.") from error
    if not parts:
        raise ValueError(
            f"{name!r} holds no {EXTENSION} in its scene, but the Gaussians are read from there."
        )
    return Splats.joined(parts, noted)


class _Glb:
    """Document and bytes of a binary glTF file."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        magic, version, _, length, kind = struct.unpack("<4sIII4s", content[:20])
        if magic != b"glTF" or version != 2 or kind != b"JSON":
            raise ValueError(f"{name!r} does not start as a binary glTF 2.0 file does.")
        try:
            self.document = json.loads(content[20 : 20 + length])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name!r} cannot be read as glTF 2.0: its JSON is damaged.") from error
        self.binary = content[28 + length :]

    def primitives(self) -> Iterator[tuple[NDArray[np.float64], Any]]:
        """Each primitive of Gaussians in the scene, with the matrix [4, 4] that takes it there."""
        document, count = self.document, 0
        left = [
            (index, np.eye(4), 0) for index in document["scenes"][document.get("scene", 0)].get("nodes", [])
        ]
        while left:
            index, above, depth = left.pop(0)
            count += 1
            if depth > MAX_DEPTH or count > len(document["nodes"]):
                raise ValueError(f"{self.name!r} cannot be read as glTF 2.0: its nodes go round in circles.")
            node = document["nodes"][index]
            try:
                matrix = above @ _matrix(node)
            except ValueError as error:
                raise ValueError(
                    f"{self.name!r} cannot be read as glTF 2.0: a node's place is damaged."
                ) from error
            for primitive in document["meshes"][node["mesh"]]["primitives"] if "mesh" in node else ():
                if EXTENSION in primitive.get("extensions", {}):
                    yield matrix, primitive
            left += [(child, matrix, depth + 1) for child in node.get("children", [])]

    def splats(self, primitive: Any) -> Splats:
        """The Gaussians of a primitive, in its own axes."""
        extension = primitive["extensions"][EXTENSION]
        if (packed := extension.get("extensions", {}).get(PACKED)) is not None:
            return spz.decode(self.name, bytes(self.view(packed["bufferView"])))
        if extension.get("extensions"):
            kinds = ", ".join(sorted(extension["extensions"]))
            raise ValueError(
                f"{self.name!r} is compressed with {kinds[:100]}, but it must be plain: export it without."
            )
        if (kernel := extension.get("kernel", "ellipse")) != "ellipse":
            raise ValueError(f"{self.name!r} has the kernel {str(kernel)[:40]!r}, but it must be 'ellipse'.")
        if (space := extension.get("colorSpace", DISPLAY)) != DISPLAY:
            logging.warning(
                "%r blends its colours in %s, but here they are blended as %s: what is thin looks different.",
                *(self.name, str(space)[:40], DISPLAY),
            )
        attributes = primitive["attributes"]

        def values(attribute: str, width: int) -> NDArray[np.float64]:
            if attribute not in attributes:
                raise ValueError(
                    f"{self.name!r} lacks the attribute {attribute!r}, which Gaussians in glTF have."
                )
            return self.accessor(attribute, attributes[attribute], width)

        harmonics = [values(f"{EXTENSION}:SH_DEGREE_0_COEF_0", 3)]
        for degree in (1, 2, 3):
            if f"{EXTENSION}:SH_DEGREE_{degree}_COEF_0" not in attributes:
                break
            harmonics += [
                values(f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{i}", 3) for i in range(2 * degree + 1)
            ]
        columns = {
            "POSITION": values("POSITION", 3),
            "SCALE": values(f"{EXTENSION}:SCALE", 3),
            "ROTATION": values(f"{EXTENSION}:ROTATION", 4)[:, [3, 0, 1, 2]],
            "OPACITY": values(f"{EXTENSION}:OPACITY", 1)[:, 0],
        }
        lengths = {len(each) for each in (*columns.values(), *harmonics)}
        if len(lengths) > 1:
            raise ValueError(
                f"{self.name!r} has attributes of {sorted(lengths)} values, but it must be as many each."
            )
        outside = int(np.count_nonzero(~((columns["OPACITY"] >= 0) & (columns["OPACITY"] <= 1))))
        if outside:
            raise ValueError(f"{self.name!r} holds {outside} values of 'OPACITY' that are not in [0, 1].")
        return Splats.of_file(
            means=columns["POSITION"],
            log_scales=log_scales_of(self.name, columns["SCALE"]),
            rotations=columns["ROTATION"],
            opacities=columns["OPACITY"],
            harmonics=np.stack(harmonics, axis=1),
        )

    def view(self, index: int) -> memoryview:
        """The bytes of a buffer view, in the file's own buffer."""
        view = self.document["bufferViews"][index]
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if view["buffer"] != 0 or "uri" in self.document["buffers"][0]:
            raise ValueError(
                f"{self.name!r} has buffers outside of it, but the Gaussians must be in the .glb file."
            )
        if min(start, length) < 0 or start + length > len(self.binary):
            raise ValueError(f"{self.name!r} claims more bytes than it has.")
        return memoryview(self.binary)[start : start + length]

    def accessor(self, attribute: str, index: int, width: int) -> NDArray[np.float64]:
        """Numbers [N, width] of an attribute."""
        accessor = self.document["accessors"][index]
        if "sparse" in accessor or "bufferView" not in accessor or WIDTHS.get(accessor["type"]) != width:
            raise ValueError(
                f"{self.name!r}: {attribute!r} must be {width} numbers each, in a buffer, and not sparse."
            )
        kind, count = np.dtype(COMPONENTS[accessor["componentType"]]), accessor["count"]
        view, start = self.view(accessor["bufferView"]), accessor.get("byteOffset", 0)
        stride = self.document["bufferViews"][accessor["bufferView"]].get("byteStride", width * kind.itemsize)
        need = start + (count - 1) * stride + width * kind.itemsize
        if (
            not 0 <= count <= MAX_COUNT
            or start < 0
            or stride < width * kind.itemsize
            or (count and need > len(view))
        ):
            raise ValueError(
                f"{self.name!r}: {attribute!r} claims {count} values, more than its buffer holds."
            )
        with np.errstate(invalid="ignore"):
            found = np.ndarray((count, width), kind, view, start, (stride, kind.itemsize)).astype(np.float64)
        if accessor.get("normalized") and kind.kind in "iu":
            return np.maximum(found / np.iinfo(kind).max, -1)
        return found


def _matrix(node: Any) -> NDArray[np.float64]:
    """The matrix [4, 4] of a node."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = (float(each) for each in node.get("rotation", (0, 0, 0, 1)))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return matrix


def placed(name: str, splats: Splats, matrix: NDArray[np.float64]) -> Splats:
    """Gaussians turned, scaled and moved by a matrix [4, 4]."""
    if np.array_equal(matrix, np.eye(4)) or len(splats) == 0:
        return splats
    with np.errstate(all="ignore"):
        size = np.cbrt(np.linalg.det(matrix[:3, :3]))
        rotation = matrix[:3, :3] / size
        rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    if not size > 0 or not rigid or not np.isfinite(matrix).all():
        raise ValueError(
            f"{name!r} mirrors its Gaussians or scales them unevenly, but its nodes may turn, scale and move them."
        )
    moved = Splats.of(GaussianModel(turned(splats.raw(name), torch.from_numpy(rotation))))
    return Splats.of_file(
        means=moved.means * size + matrix[:3, 3],
        log_scales=moved.log_scales + np.log(size),
        rotations=moved.rotations,
        opacities=moved.opacities,
        harmonics=moved.harmonics,
    )
