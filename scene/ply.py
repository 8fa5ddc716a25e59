"""PLY files, and Gaussians in them in the layout of Inria's viewer."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from utils.files import atomic_path
from utils.finite import NotFiniteError
from utils.spherical_harmonics import degree_of, num_coefficients

MAX_ROWS = 50_000_000
"""Largest number of vertices, or faces, in a header; more are taken for a damaged file."""
HEADER_BYTES = 65_536


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


def write_gaussians(path: str | os.PathLike[str], raw: Mapping[str, Tensor]) -> None:
    """Write N Gaussians as float32, binary little endian, atomically; the same values give the same bytes.

    raw: xyz [N, 3], f_dc [N, 1, 3], f_rest [N, K-1, 3], opacity [N, 1] (logits), scaling [N, 3] (log),
    rotation [N, 4], before activation. f_rest goes channel by channel, normals are 0. Raises NotFiniteError,
    with the group's name, for values that are not finite: such a file would break any viewer.
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
    with atomic_path(path) as temporary:
        PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<").write(str(temporary))


def read_gaussians(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what write_gaussians or another program of Inria's layout wrote: float32 tensors by group name.

    Raises FileNotFoundError, or ValueError in one sentence for a file that is no PLY file, lacks a
    property, claims an absurd size or holds values that are not finite.
    """
    vertices = _read_vertices(path)
    rest = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in vertices.dtype.names or ())
    if rest % 3:
        raise ValueError(f"{os.fspath(path)!r} has {rest} f_rest properties, but it must be 0, 9, 24 or 45.")
    degree = degree_of(rest // 3 + 1)
    names = [name for name in gaussian_properties(degree) if name[0] != "n"]
    columns = {name: _finite(path, _column(path, vertices, name), name) for name in names}

    def stack(*keys: str) -> Tensor:
        data = [columns[key] for key in keys]
        return torch.from_numpy(np.stack(data, axis=1)) if data else torch.zeros(len(vertices), 0)

    return {
        "xyz": stack("x", "y", "z"),
        "f_dc": stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None, :],
        "f_rest": stack(*(f"f_rest_{i}" for i in range(rest)))
        .reshape(len(vertices), 3, rest // 3)
        .transpose(1, 2)
        .contiguous(),
        "opacity": stack("opacity"),
        "scaling": stack("scale_0", "scale_1", "scale_2"),
        "rotation": stack("rot_0", "rot_1", "rot_2", "rot_3"),
    }


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
    data = read_ply(path)
    if "vertex" not in data:
        raise ValueError(f"{os.fspath(path)!r} has no element 'vertex', but the points are read from there.")
    return data["vertex"].data


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
