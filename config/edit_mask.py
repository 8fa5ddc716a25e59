"""What `edit_mask` names: a box, a sphere, or files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from config.keys import requirement

Point = tuple[float, float, float]
MASK_FILES = (".ply", ".npy")
MEANING = (
    "box:x0,y0,z0,x1,y1,z1 or sphere:x,y,z,radius in world units, a painted .ply file, a .npy file of truth values, or a folder of "
    "masks with cameras.json"
)


@dataclass(frozen=True)
class Box:
    """A box along the axes, from its least to its greatest corner, in world units."""

    low: Point
    high: Point


@dataclass(frozen=True)
class Sphere:
    """A ball, in world units."""

    center: Point
    radius: float


def region(text: str) -> Box | Sphere | None:
    """Return the region that a value of `edit_mask` describes; None if it is a path. Raises ValueError for half a region."""
    found = re.fullmatch(r"\s*(box|sphere)\s*:(.*)", text, flags=re.DOTALL)
    if found is None:
        return None
    numbers = [float(number) for number in found[2].split(",")]
    if not all(abs(number) < float("inf") for number in numbers):
        raise ValueError("not finite")
    if found[1] == "sphere":
        x, y, z, radius = numbers
        if radius <= 0:
            raise ValueError("no radius")
        return Sphere((x, y, z), radius)
    x0, y0, z0, x1, y1, z1 = numbers
    if not (x0 < x1 and y0 < y1 and z0 < z1):
        raise ValueError("no volume")
    return Box((x0, y0, z0), (x1, y1, z1))


def checked(value: Any) -> str | None:
    """Return a value of `edit_mask` as it is, None for blanks; raises pydantic's error for half a region."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or "\0" in value:
        raise requirement(MEANING)
    try:
        region(value)
    except ValueError:
        what = "box:x0,y0,z0,x1,y1,z1 with each of the first three numbers below its partner, or sphere:x,y,z,radius with a radius "
        raise requirement(what + "above 0") from None
    return value
