"""PLY files, and Gaussians in them in the layout of Inria's viewer."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from utils.axes import axes_of_line, note_line
from utils.files import atomic_path
from utils.finite import NotFiniteError
from utils.spherical_harmonics import degree_of, num_coefficients

MAX_ROWS = 50_000_000
"""Largest number of vertices, or faces, in a header; more are taken for a damaged file."""
HEADER_BYTES = 65_536
OPAQUE = math.log(1e6)
"""Logit of an opacity that a file has as 1: that of 0.999999."""
HARMONICS = {0: 0, 9: 9, 24: 24, 45: 45, 72: 45}
"""Numbers of f_rest that a file may have: those that are read of them. The rest of 72 are of degree 4."""
THINNEST = 0.01
"""Third scale, in units of the second largest, of the flat Gaussians of a file with two."""


def gaussian_properties(sh_degree: int) -> list[str]:
    """List the properties of a Gaussian's vertex, in order."""
    rest = 3 * (num_coefficients(sh_degree) - 1)
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_gaussians(path: str | os.PathLike[str], raw: Mapping[str, Tensor], axes: str | None = None) -> None:
    """Write N Gaussians as float32, binary little endian, atomically; the same values give the same bytes.

    raw: xyz [N, 3], f_dc [N, 1, 3], f_rest [N, K-1, 3], opacity [N, 1] (logits), scaling [N, 3] (log),
    rotation [N, 4], before activation. f_rest goes channel by channel, normals are 0. axes: up and front, for
    a comment. Raises NotFiniteError, with the group's name, for values that are not finite: such a file would
    break any viewer.
    """
    for name, tensor in raw.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NotFiniteError(
                f"{name} has values that are not finite, so {os.fspath(path)!r} was not written."
            )
    columns = [
        raw["xyz"],
        torch.zeros_like(raw["xyz"]),
        raw["f_dc"].transpose(1, 2).flatten(1),
        raw["f_rest"].transpose(1, 2).flatten(1),
        raw["opacity"],
        raw["scaling"],
        raw["rotation"],
    ]
    table = torch.cat([column.detach() for column in columns], dim=1).float().numpy(force=True)
    names = gaussian_properties(degree_of(raw["f_rest"].shape[1] + 1))
    vertices = np.ascontiguousarray(table).view([(name, "<f4") for name in names])[:, 0]
    element = PlyElement.describe(vertices, "vertex", comments=axes_comments(axes))
    with atomic_path(path) as temporary:
        PlyData([element], text=False, byte_order="<").write(str(temporary))


def axes_comments(axes: str | None) -> list[str]:
    """Comments with the note of axes, for an element: Inria's viewer takes the third line for the count."""
    return [] if axes is None else [note_line(axes)]


def noted_axes(path: str | os.PathLike[str]) -> str | None:
    """Axes of the comment that write_gaussians leaves, or None."""
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES).split(b"end_header")[0]
    lines = re.findall(rb"^comment (.*?)\r?$", header, flags=re.MULTILINE)
    return next(filter(None, (axes_of_line(line.decode("ascii", "replace")) for line in lines)), None)


def has_chunks(path: str | os.PathLike[str]) -> bool:
    """Return whether a PLY file is compressed as PlayCanvas does it. Raises as read_gaussians does."""
    return "chunk" in _rows(path)


def read_gaussians(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what write_gaussians or another program of Inria's layout wrote: float32 tensors by group name.

    Opacities of +inf are opaque. Gaussians of -inf, which nobody sees, are left out. A file without scale_2
    holds flat Gaussians, as 2DGS makes them. The filter of Mip-Splatting, filter_3D, becomes part of scales
    and opacities. Warnings report all this, and what is not used.

    Raises FileNotFoundError, or ValueError in one sentence for a file that is no PLY file, lacks a
    property, claims an absurd size or holds other values that are not finite.
    """
    file, vertices = os.fspath(path), _read_vertices(path)
    there = vertices.dtype.names or ()
    rest = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in there)
    if rest not in HARMONICS:
        raise ValueError(
            f"{file!r} has {rest} f_rest properties, but it must have 0, 9, 24, 45 or 72 of them, for harmonics "
            "of degree 0 to 4."
        )
    flat = "scale_2" not in there and {"scale_0", "scale_1"} <= set(there)
    names = [
        *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{i}" for i in range(rest)),
        *("opacity", "scale_0", "scale_1", *([] if flat else ["scale_2"])),
        *("rot_0", "rot_1", "rot_2", "rot_3"),
        *(["filter_3D"] if "filter_3D" in there else []),
    ]
    columns = {name: _numbers(path, vertices, name) for name in names}
    keep = _settle_opacities(file, columns)
    columns = {name: _finite(path, column[keep], name) for name, column in columns.items()}
    if flat:
        columns["scale_2"] = np.minimum(columns["scale_0"], columns["scale_1"]) + np.float32(
            math.log(THINNEST)
        )
        logging.warning(
            "%r has no scale_2: its Gaussians are taken as flat, %g as thick as wide.", file, THINNEST
        )
    if "filter_3D" in columns:
        _fuse_filter(columns)
        logging.warning(
            "%r has the filter of Mip-Splatting, filter_3D: it becomes part of scales and opacities.", file
        )
    if HARMONICS[rest] < rest:
        logging.warning("%r has harmonics of degree 4, which are dropped: up to 3 are read.", file)
    _report_unused(path, [name for name in there if name not in (*names, "nx", "ny", "nz")])

    def stack(*keys: str) -> Tensor:
        data = [columns[key] for key in keys]
        return torch.from_numpy(np.stack(data, axis=1)) if data else torch.zeros(len(columns["x"]), 0)

    return {
        "xyz": stack("x", "y", "z"),
        "f_dc": stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None, :],
        "f_rest": stack(*(f"f_rest_{i}" for i in range(rest)))
        .reshape(len(columns["x"]), 3, rest // 3)[:, :, : HARMONICS[rest] // 3]
        .transpose(1, 2)
        .contiguous(),
        "opacity": stack("opacity"),
        "scaling": stack("scale_0", "scale_1", "scale_2"),
        "rotation": stack("rot_0", "rot_1", "rot_2", "rot_3"),
    }


def _settle_opacities(file: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Make opacities of +inf finite, and return which rows are not of -inf [N]; warnings count both."""
    opaque, absent = np.isposinf(columns["opacity"]), np.isneginf(columns["opacity"])
    columns["opacity"] = np.where(opaque, np.float32(OPAQUE), columns["opacity"])
    if opaque.any():
        logging.warning("%r: %d opacities of +inf are taken as opaque.", file, opaque.sum())
    if absent.any():
        logging.warning(
            "%r: %d of %d Gaussians have an opacity of -inf, which is invisible, and are left out.",
            file,
            absent.sum(),
            len(absent),
        )
    return ~absent


def _fuse_filter(columns: dict[str, np.ndarray]) -> None:
    """Widen scales by the standard deviation filter_3D and lower opacities by as much (Yu et al. 2024, section 4.1)."""
    names = ("scale_0", "scale_1", "scale_2")
    before = np.stack([columns[name] for name in names], axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        after = (
            np.logaddexp(2 * before, 2 * np.log(np.abs(columns.pop("filter_3D").astype(np.float64)))[:, None])
            / 2
        )
    for name, column in zip(names, after.T):
        columns[name] = column.astype(np.float32)
    logit = columns["opacity"].astype(np.float64)
    # The logarithm of the opacity, and with it the logit: log p - log(1 - p).
    log_p = -np.logaddexp(0, -logit) + (before - after).sum(axis=1)
    log_p = np.minimum(log_p, -np.logaddexp(0, -OPAQUE))
    columns["opacity"] = (log_p - np.log(-np.expm1(log_p))).astype(np.float32)


def _report_unused(path: str | os.PathLike[str], properties: list[str], most: int = 6) -> None:
    """Warn of vertex properties, and of elements beside the vertices, that are not used."""
    found = [
        ("vertex properties", properties),
        ("elements", [each for each in _rows(path) if each != "vertex"]),
    ]
    for what, names in found:
        if names:
            shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
            logging.warning("%r: the %s %s are not used.", os.fspath(path), what, shown)


def _numbers(path: str | os.PathLike[str], vertices: np.ndarray, name: str) -> np.ndarray:
    """Return a property as float32, or raise ValueError if it is not there or holds lists."""
    if name in (vertices.dtype.names or ()) and vertices.dtype[name].hasobject:
        raise ValueError(f"{os.fspath(path)!r} has lists as {name!r}, but it must be one number a vertex.")
    with np.errstate(over="ignore", invalid="ignore"):
        return _column(path, vertices, name)


def read_ply(
    path: str | os.PathLike[str], list_lengths: Mapping[str, Mapping[str, int]] | None = None
) -> PlyData:
    """Read all elements of a PLY file.

    `list_lengths` names the length of every list, by element and property: a binary file is read many times
    faster so, and refused where one differs. Raises FileNotFoundError, or ValueError in one sentence.
    """
    name = os.fspath(path)
    _rows(path)
    try:
        return PlyData.read(name, known_list_len=list_lengths or {})
    except (PlyParseError, ValueError, EOFError, ArithmeticError, MemoryError) as error:
        raise ValueError(f"{name!r} cannot be read as a PLY file: {error}.") from error


def _read_vertices(path: str | os.PathLike[str]) -> np.ndarray:
    """The structured array of a PLY file's element "vertex"."""
    elements = read_elements(path)
    if "vertex" not in elements:
        raise ValueError(f"{os.fspath(path)!r} has no element 'vertex', but the points are read from there.")
    return elements["vertex"]


def read_elements(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The structured arrays of all elements of a PLY file, by name. Raises as read_gaussians does."""
    return {element.name: element.data for element in read_ply(path)}


def has_faces(path: str | os.PathLike[str]) -> bool:
    """Return whether a PLY file is a mesh.

    Raises as read_gaussians does, if its header claims more than the file holds.
    """
    return _rows(path).get("face", 0) > 0


def _rows(path: str | os.PathLike[str]) -> dict[str, int]:
    """Number of rows of each element of a PLY file, by its header.

    Refuses a header that claims more than the file can hold, before memory is allocated for it.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name!r} is not there, but it must be a PLY file.")
    with open(path, "rb") as file:
        header = file.read(HEADER_BYTES).split(b"end_header")[0]
    rows, size = {}, os.path.getsize(path)
    for block in re.split(rb"^\s*element\s+", header, flags=re.MULTILINE)[1:]:
        if (found := re.match(rb"(\S+)\s+(\d{1,18})\b", block)) is None:
            continue  # the parser reports what is wrong with it
        element, count = found[1].decode("ascii", "replace"), int(found[2])
        # A row takes at least a byte for each property: a digit in ASCII, a binary number, the length of a list.
        width = max(1, len(re.findall(rb"^\s*property\s", block, flags=re.MULTILINE)))
        if count > MAX_ROWS or count * width > size:
            what = {"vertex": "vertices", "face": "faces"}.get(element, f"rows of {element!r}")
            raise ValueError(
                f"{name!r} claims {count} {what} in {size} bytes, "
                f"but it must hold what it claims and at most {MAX_ROWS}."
            )
        rows[element] = count
    return rows


def _column(path: str | os.PathLike[str], vertices: np.ndarray, name: str) -> np.ndarray:
    """Return a property as float32."""
    if name not in (vertices.dtype.names or ()):
        raise ValueError(f"{os.fspath(path)!r} lacks the vertex property {name!r}, which is needed here.")
    return np.asarray(vertices[name]).astype(np.float32)


def _finite(path: str | os.PathLike[str], column: np.ndarray, name: str) -> np.ndarray:
    """Return the property of that name, or raise ValueError if not all its values are finite."""
    bad = int(np.count_nonzero(~np.isfinite(column)))
    if bad:
        raise ValueError(f"{os.fspath(path)!r} holds {bad} values of {name!r} that are not finite numbers.")
    return column
