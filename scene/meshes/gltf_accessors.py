"""Accessors of glTF 2.0: numbers of any type in buffers, strided, sparse and normalized (section 3.6.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from scene.meshes.colors import Array
from scene.meshes.gltf_file import GltfFile

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def numbers(file: GltfFile, index: Any) -> Array:
    """Read an accessor as float64 [N, C]: a normalized whole number stands for a share of its type's greatest.

    Raises ValueError or KeyError for one that is not sound.
    """
    accessor = file.entry("accessors", index)
    values = _raw(file, accessor)
    if not accessor.get("normalized") or values.dtype.kind == "f":
        return values.astype(np.float64)
    return np.maximum(values / np.iinfo(values.dtype).max, -1.0)


def whole_numbers(file: GltfFile, index: Any) -> Array:
    """Read an accessor of whole numbers as int64 [N, C]; raises like `numbers`."""
    values = _raw(file, file.entry("accessors", index))
    if values.dtype.kind not in "iu":
        raise ValueError(f"its accessors[{index}] holds floats, but whole numbers are needed there")
    return values.astype(np.int64)


def _raw(file: GltfFile, accessor: dict[str, Any]) -> Array:
    """The values [N, C] as they are stored; zeros without memory of their own if none are."""
    dtype, columns = _dtype(accessor), COLUMNS.get(accessor["type"])
    if columns is None:
        raise ValueError(f"an accessor's type is {accessor['type']!r}, which is unknown")
    count = accessor["count"]
    if "bufferView" in accessor:
        values = _strided(file, accessor["bufferView"], accessor.get("byteOffset", 0), dtype, count, columns)
    else:
        values = np.broadcast_to(np.zeros((1, 1), dtype), (count, columns))
    if (sparse := accessor.get("sparse")) is None:
        return values
    where, what = sparse["indices"], sparse["values"]
    number, kind = sparse["count"], _dtype(where)
    rows = _strided(file, where["bufferView"], where.get("byteOffset", 0), kind, number, 1)[:, 0].astype(
        np.int64
    )
    if number and not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(f"a sparse accessor replaces value {rows.max()} of {count}")
    changed = values.copy()
    changed[rows] = _strided(file, what["bufferView"], what.get("byteOffset", 0), dtype, number, columns)
    return changed


def _dtype(accessor: dict[str, Any]) -> np.dtype[Any]:
    component = accessor["componentType"]
    if component not in COMPONENTS:
        raise ValueError(f"an accessor's componentType is {component!r}, which is unknown")
    return np.dtype(COMPONENTS[component])


def _strided(file: GltfFile, view: Any, offset: int, dtype: np.dtype[Any], count: int, columns: int) -> Array:
    """Values [count, columns] of a buffer view, from `offset` bytes on."""
    data, stride = file.view(view)
    row = columns * dtype.itemsize
    stride = row if stride is None else stride
    needed = (count - 1) * stride + row if count else 0
    if not (offset >= 0 and row <= stride and offset + needed <= len(data)):
        raise ValueError(f"{count} values in steps of {stride} bytes do not fit into bufferViews[{view}]")
    return np.ndarray((count, columns), dtype, data, offset, (stride, dtype.itemsize))
