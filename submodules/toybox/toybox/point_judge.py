"""Judge of coloured point clouds: the nearest of the true toys, or none of them. It has no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from toybox.captions import NAMES
from toybox.world import Name, toy

Array = NDArray[np.float64]

JUDGED_POINTS = 1024
"""Points of a larger cloud that are looked at, chosen at random: the distance depends on their number."""
SURFACE_POINTS = 2048
FARTHEST = 0.065
"""Distance from every toy at which a cloud is none, in world units.

1,024 points of a toy's surface astray by 0.05 lie within 0.063 of it (rough starts and fully worn toys are
astray by 0.03); the two nearest kinds are 0.1 apart.
"""
FARTHEST_COLOR = 0.4
"""Distance beyond which colours are no toy's, as a root mean square of |Δ(r, g, b)|."""


Shape = tuple[str, bool]
"""Type of a shape: a kind, and whether it stands on a table."""


@dataclass(frozen=True)
class PointVerdict:
    """Verdict on a cloud.

    shape: the nearest, or None for none of them; name: the toy, or None for none in shape or in colours;
    distance: to the nearest shape, in world units; color_error: from the nearest colours of that shape.
    """

    shape: Shape | None
    name: Name | None
    distance: float
    color_error: float


def shape_of(name: Name) -> Shape:
    return name.kind, name.on is not None


NAMED: dict[Shape, list[Name]] = {}
for _name in NAMES:
    NAMED.setdefault(shape_of(_name), []).append(_name)


def judge_points(points: Array, colors: Array) -> PointVerdict:
    """Judge a cloud: points [N, 3] in world units and as toys stand, colours [N, 3] in [0, 1]; N of at least 1,024.

    The shape is that of the nearest surface, whatever its colours: the greater of the two directed distances, from the
    cloud to the surface and back, as in the modified Hausdorff distance (Dubuisson & Jain, 1994), but root mean squares,
    which parts that are missing or too many raise more than points astray. The colours are those of the toy of this
    shape whose colours are nearest where it is nearest to the points.
    """
    if len(points) > JUDGED_POINTS:
        chosen = np.random.default_rng(0).permutation(len(points))[:JUDGED_POINTS]
        points, colors = points[chosen], colors[chosen]
    tree = cKDTree(points)
    distances, places = {}, {}
    for shape in NAMED:
        surface, samples = _surface(shape)
        to_toy, places[shape] = surface.query(points)
        distances[shape] = max(_rms(to_toy), _rms(tree.query(samples)[0]))
    shape = min(distances, key=distances.__getitem__)
    errors = {
        name: _rms(np.linalg.norm(colors - toy(name).colors[places[shape]], axis=1)) for name in NAMED[shape]
    }
    name = min(errors, key=errors.__getitem__)
    is_toy = distances[shape] < FARTHEST
    return PointVerdict(
        shape=shape if is_toy else None,
        name=name if is_toy and errors[name] < FARTHEST_COLOR else None,
        distance=distances[shape],
        color_error=errors[name],
    )


@cache
def _surface(shape: Shape) -> tuple[cKDTree, Array]:
    """Samples of a shape's surface, all of them, and SURFACE_POINTS of them, which are in random order."""
    points = toy(NAMED[shape][0]).points
    return cKDTree(points), points[:SURFACE_POINTS]


def _rms(distances: Array) -> float:
    return float(np.sqrt(np.square(distances).mean()))
