"""Which toy a coloured point cloud is: the nearest of the true ones, or none of them. It has no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from toybox.world import COLORS, KINDS, toy

Array = NDArray[np.float64]

JUDGED_POINTS = 1024
"""Of a larger cloud so many are looked at, chosen at random: the distance depends on their number."""
SURFACE_POINTS = 2048
FARTHEST = 0.065
"""A cloud this far from every toy is none, in world units. 1,024 points of a toy's surface astray by 0.05 lie within 0.063
of it (rough starts and fully worn toys are astray by 0.03); the two nearest kinds are 0.1 apart."""
FARTHEST_COLOR = 0.4
"""Colours that are further than this from every toy's, as a root mean square of |Δ(r, g, b)|, are no toy's."""


@dataclass(frozen=True)
class PointVerdict:
    """kind and color: keys of KINDS and COLORS, or None for none of them; distance: to the nearest kind, in world
    units; color_error: from the nearest colour of that kind."""

    kind: str | None
    color: str | None
    distance: float
    color_error: float


def judge_points(points: Array, colors: Array) -> PointVerdict:
    """Judge a cloud: points [N, 3] in world units and as toys stand, colours [N, 3] in [0, 1]; N of at least 1,024.

    The kind is that of the nearest surface, whatever its colours: the greater of the two directed distances, from the
    cloud to the surface and back, as in the modified Hausdorff distance (Dubuisson & Jain, 1994), but root mean squares,
    which parts that are missing or too many raise more than points astray. The colour is that whose toy of this kind
    has the nearest colours where it is nearest to the points.
    """
    if len(points) > JUDGED_POINTS:
        chosen = np.random.default_rng(0).permutation(len(points))[:JUDGED_POINTS]
        points, colors = points[chosen], colors[chosen]
    tree = cKDTree(points)
    distances, places = {}, {}
    for kind in KINDS:
        surface, samples = _surface(kind)
        to_toy, places[kind] = surface.query(points)
        distances[kind] = max(_rms(to_toy), _rms(tree.query(samples)[0]))
    kind = min(distances, key=distances.__getitem__)
    errors = {
        color: _rms(np.linalg.norm(colors - toy(kind, color).colors[places[kind]], axis=1))
        for color in COLORS
    }
    color = min(errors, key=errors.__getitem__)
    is_toy = distances[kind] < FARTHEST
    return PointVerdict(
        kind=kind if is_toy else None,
        color=color if is_toy and errors[color] < FARTHEST_COLOR else None,
        distance=distances[kind],
        color_error=errors[color],
    )


@cache
def _surface(kind: str) -> tuple[cKDTree, Array]:
    """All samples of a kind's surface, and SURFACE_POINTS of them, which are in random order."""
    points = toy(kind, next(iter(COLORS))).points
    return cKDTree(points), points[:SURFACE_POINTS]


def _rms(distances: Array) -> float:
    return float(np.sqrt(np.square(distances).mean()))
