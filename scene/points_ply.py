"""Point clouds in PLY files of any origin."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch

from scene.ply import read_ply
from scene.ply_colors import colors_of
from scene.point_cloud import PointCloud

NORMALS = {"nx", "ny", "nz", "normal_x", "normal_y", "normal_z"}
SHOWN = 8
"""Names in a message, at most."""


def read_points(path: str | os.PathLike[str]) -> PointCloud:
    """Read any PLY file with x, y, z, and with colours as `ply_colors.colors_of` finds them.

    A warning names the properties and elements that are not used; normals go without saying. Numbers may be
    other than finite; else raises FileNotFoundError or ValueError, one sentence each.
    """
    name, data = os.fspath(path), read_ply(path)
    if "vertex" not in data:
        raise ValueError(f"{name!r} has no element 'vertex', but the points are read from there.")
    table = data["vertex"].data
    points = coordinates(name, table)
    colors, used = colors_of(name, table)
    unused = unused_properties(table.dtype.names or (), used)
    if unused and colors is None:
        logging.warning("%r: none of its vertex properties is a known colour: %s.", name, listed(unused))
    elif unused:
        logging.warning("%r: its vertex properties %s are not used.", name, listed(unused))
    others = [element.name for element in data if element.name != "vertex" and len(element.data)]
    if others:
        logging.warning("%r: its elements %s are not used.", name, listed(others))
    return PointCloud(
        torch.from_numpy(points),
        None if colors is None else torch.from_numpy(colors.astype(np.float32)),
    )


def coordinates(path: str, table: np.ndarray) -> np.ndarray:
    """Return x, y, z [N, 3] of a structured array, float32; ValueError if one is missing."""
    names = {name.lower(): name for name in reversed(table.dtype.names or ())}
    columns = []
    for name in "xyz":
        if name not in names or table.dtype[names[name]].kind not in "iuf":
            raise ValueError(f"{path!r} lacks the vertex property {name!r}, which is needed here.")
        columns.append(np.asarray(table[names[name]]))
    with np.errstate(over="ignore"):  # beyond float32 a number counts as infinite
        return np.stack(columns, axis=1).astype(np.float32)


def unused_properties(names: Sequence[str], used: set[str]) -> list[str]:
    """List the vertex properties that are neither coordinates, normals nor `used`."""
    return [name for name in names if name.lower() not in NORMALS | {*"xyz"} and name not in used]


def listed(names: Sequence[str]) -> str:
    """Join the first names of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
