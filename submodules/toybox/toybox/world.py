"""The toys: 8 kinds in 6 colours, as coloured surface samples of exact solids.

World units: a toy fits in a ball of radius 1 around the origin; z is up and its front faces +x, the camera at
azimuth 0. A toy of one kind and colour is always the same toy, so that what is distilled can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from toybox.primitives import RGB, Array, Paint, Solid, box, ellipsoid, frustum, polyhedron, rotation, torus

COLORS: dict[str, RGB] = {
    "red": (0.86, 0.10, 0.08),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.10, 0.24, 0.82),
    "yellow": (0.96, 0.83, 0.08),
    "purple": (0.50, 0.12, 0.64),
    "orange": (0.96, 0.48, 0.04),
}
WHITE, BLACK, GREY = (0.95, 0.95, 0.95), (0.05, 0.05, 0.06), (0.42, 0.43, 0.46)
BEIGE, BROWN, DARK, GLASS = (0.87, 0.80, 0.65), (0.42, 0.25, 0.12), (0.33, 0.17, 0.13), (0.55, 0.78, 0.92)
BEAK, TAIL_LAMP, LAMP, BRICK = (0.95, 0.55, 0.05), (0.75, 0.05, 0.05), (1.0, 0.95, 0.70), (0.60, 0.22, 0.18)

SPACING = 0.019
"""Least distance between two surface samples in world units: about a pixel of a 128 px view."""

LIGHT = np.array([0.5, 0.0, 0.85]) / np.hypot(0.5, 0.85)
"""Towards the light, which stands above and in front: a back is darker than a front."""

Mask = NDArray[np.bool_]
Where = Callable[[Array, Array], Mask]


@dataclass(frozen=True)
class Toy:
    """Surface samples: points [N, 3], outward unit normals [N, 3], colours [N, 3] in [0, 1], light baked in."""

    kind: str
    color: str
    points: Array
    normals: Array
    colors: Array


def painted(base: RGB, *spots: tuple[Where, RGB]) -> Paint:
    """`base` with coloured regions over it, each given by where(points, normals) → mask."""

    def paint(points: Array, normals: Array) -> Array:
        colors = np.tile(np.asarray(base), (len(points), 1))
        for where, color in spots:
            colors[where(points, normals)] = color
        return colors

    return paint


def ball(center: tuple[float, float, float], radius: float) -> Where:
    return lambda p, n: np.linalg.norm(p - np.asarray(center), axis=1) < radius


def pane(axis: int, side: int, center: tuple[float, float], half: tuple[float, float]) -> Where:
    """A rectangle on the faces that look along ±axis; centre and half sizes in the two other coordinates."""
    rest = [k for k in range(3) if k != axis]

    def where(p: Array, n: Array) -> Mask:
        near = np.abs(p[:, rest] - np.asarray(center)) < np.asarray(half)
        return near.all(axis=1) & (n[:, axis] * side > 0.5)

    return where


def mushroom(color: RGB) -> list[Solid]:
    rings = (((20, 92, 164, 236, 308), 0.60, 0.24), ((56, 128, 200, 272, 344), 0.37, 0.43))
    dots = [
        (ball((r * np.cos(a), r * np.sin(a), z), 0.13), WHITE)
        for ring, r, z in rings
        for a in np.radians(ring)
    ]
    under = (lambda p, n: p[:, 2] < 0.04, BEIGE)
    return [
        ellipsoid((0.68, 0.68, 0.50), painted(color, *dots, (ball((0, 0, 0.53), 0.13), WHITE), under)).moved((0, 0, 0.04)),
        frustum(0.24, 0.17, 0.68, BEIGE).moved((0, 0, -0.70)),
    ]  # fmt: skip


def snowman(color: RGB) -> list[Solid]:
    buttons = [
        (ball(center, 0.055), BLACK) for center in ((0.31, 0, 0.04), (0.31, 0, -0.12), (0.39, 0, -0.38))
    ]
    eyes = [(ball((0.20, y, 0.42), 0.06), BLACK) for y in (-0.10, 0.10)]
    return [
        ellipsoid((0.42, 0.42, 0.38), painted(WHITE, *buttons)).moved((0, 0, -0.44)),
        ellipsoid((0.31, 0.31, 0.28), painted(WHITE, *buttons)).moved((0, 0, -0.02)),
        ellipsoid((0.24, 0.24, 0.23), painted(WHITE, *eyes)).moved((0, 0, 0.34)),
        frustum(0.06, 0.01, 0.28, BEAK).moved((0.20, 0, 0.33), rotation("y", 90)),
        torus(0.21, 0.075, color).moved((0, 0, 0.16)),
        frustum(0.35, 0.35, 0.05, color).moved((0, 0, 0.48)),
        frustum(0.22, 0.20, 0.28, color).moved((0, 0, 0.52)),
    ]


def mug(color: RGB) -> list[Solid]:
    coffee = (lambda p, n: (n[:, 2] > 0.9) & (np.hypot(p[:, 0], p[:, 1]) < 0.39), DARK)
    return [
        frustum(0.45, 0.45, 0.96, painted(color, (ball((0.45, 0, 0.0), 0.19), WHITE), coffee)).moved(
            (0, 0, -0.48)
        ),
        torus(0.26, 0.08, color).moved((0, 0.50, 0.0), rotation("y", 90)),
    ]


def car(color: RGB) -> list[Solid]:
    lamps = [(pane(0, 1, (y, -0.06), (0.09, 0.075)), LAMP) for y in (-0.24, 0.24)]
    tails = [(pane(0, -1, (y, -0.06), (0.09, 0.075)), TAIL_LAMP) for y in (-0.24, 0.24)]
    grille = (pane(0, 1, (0, -0.10), (0.11, 0.06)), BLACK)
    glass = (lambda p, n: (p[:, 2] > 0.11) & (p[:, 2] < 0.29) & (n[:, 2] < 0.8), GLASS)
    tyre = painted(BLACK, (lambda p, n: (np.abs(n[:, 1]) > 0.9) & (_wheel_radius(p) < 0.09), WHITE))
    wheels = [frustum(0.18, 0.18, 0.14, tyre).moved((x, y, -0.26), rotation("x", 90))
              for x in (-0.42, 0.42) for y in (-0.26, 0.40)]  # fmt: skip
    return [
        box((0.76, 0.36, 0.16), painted(color, *lamps, *tails, grille)).moved((0, 0, -0.08)),
        box((0.44, 0.33, 0.16), painted(color, glass), taper=(0.72, 0.86)).moved((-0.10, 0, 0.22)),
        *wheels,
    ]


def _wheel_radius(p: Array) -> Array:
    return np.hypot(np.abs(p[:, 0]) - 0.42, p[:, 2] + 0.26)


def rocket(color: RGB) -> list[Solid]:
    window = ((ball((0.29, 0, 0.18), 0.17), GREY), (ball((0.29, 0, 0.18), 0.12), GLASS))
    stripe = (lambda p, n: np.abs(p[:, 2] + 0.30) < 0.05, WHITE)
    fin = np.array([(0.2, y, z) for y in (-0.035, 0.035) for z in (-0.22, -0.56)]
                   + [(0.56, y, z) for y in (-0.035, 0.035) for z in (-0.60, -0.78)])  # fmt: skip
    return [
        frustum(0.28, 0.28, 0.92, painted(color, stripe, *window)).moved((0, 0, -0.54)),
        frustum(0.28, 0.02, 0.46, WHITE).moved((0, 0, 0.38)),
        frustum(0.22, 0.16, 0.14, BLACK).moved((0, 0, -0.68)),
        *[polyhedron(fin @ rotation("z", angle).T, GREY) for angle in (45, 135, 225, 315)],
    ]


def house(color: RGB) -> list[Solid]:
    door = (pane(0, 1, (0, -0.40), (0.12, 0.24)), BROWN)
    windows = [(pane(0, 1, (y, -0.22), (0.09, 0.10)), GLASS) for y in (-0.32, 0.32)]
    windows += [(pane(1, s, (x, -0.26), (0.11, 0.11)), GLASS) for s in (-1, 1) for x in (-0.28, 0.28)]
    gable = np.array([(x, y, z) for x in (-0.5, 0.5) for y, z in ((-0.50, 0.0), (0.50, 0.0), (0.0, 0.48))])
    roof = [np.array([(x, s * y, z + h) for x in (-0.60, 0.60) for y, z in ((0.60, -0.12), (0.0, 0.50)) for h in (0, 0.09)])
            for s in (-1, 1)]  # fmt: skip
    return [
        box((0.5, 0.5, 0.32), painted(color, door, *windows)).moved((0, 0, -0.32)),
        polyhedron(gable, painted(color, (ball((0.5, 0, 0.16), 0.10), GLASS))),
        *[polyhedron(corners, DARK) for corners in roof],
        box((0.09, 0.09, 0.20), BRICK).moved((-0.24, 0.26, 0.50)),
    ]


def duck(color: RGB) -> list[Solid]:
    shade = (color[0] * 0.72, color[1] * 0.72, color[2] * 0.72)
    eyes = [(ball((0.46, y, 0.46), 0.075), BLACK) for y in (-0.15, 0.15)]
    tail = np.array(
        [(-0.40, -0.16, -0.12), (-0.40, 0.16, -0.12), (-0.36, 0, -0.26), (-0.74, 0, 0.16), (-0.30, 0, 0.06)]
    )
    feet = [ellipsoid((0.17, 0.10, 0.04), BEAK).moved((0.12, y, -0.58)) for y in (-0.16, 0.16)]
    return [
        ellipsoid((0.55, 0.38, 0.36), color).moved((-0.05, 0, -0.24)),
        ellipsoid((0.27, 0.26, 0.26), painted(color, *eyes)).moved((0.30, 0, 0.36)),
        ellipsoid((0.18, 0.15, 0.055), BEAK).moved((0.60, 0, 0.30)),
        frustum(0.24, 0.16, 0.30, color).moved((0.24, 0, -0.06)),
        *[ellipsoid((0.32, 0.07, 0.20), shade).moved((-0.10, y, -0.18)) for y in (-0.36, 0.36)],
        polyhedron(tail, color),
        *feet,
    ]


def chair(color: RGB) -> list[Solid]:
    legs = [
        box((0.065, 0.065, 0.29), BROWN).moved((x, y, -0.49)) for x in (-0.36, 0.36) for y in (-0.36, 0.36)
    ]
    posts = [box((0.055, 0.065, 0.48), BROWN).moved((-0.37, y, 0.30)) for y in (-0.36, 0.36)]
    slats = [box((0.04, 0.34, 0.11), color).moved((-0.37, 0, z)) for z in (0.08, 0.36, 0.64)]
    return [box((0.45, 0.45, 0.07), color).moved((0, 0, -0.17)), *legs, *posts, *slats]


KINDS: dict[str, Callable[[RGB], list[Solid]]] = {
    build.__name__: build for build in (mushroom, snowman, mug, car, rocket, house, duck, chair)
}


@cache
def _surface(kind: str) -> tuple[Array, Array, NDArray[np.int64]]:
    """Blue-noise samples of the visible surface of a kind: points, normals [N, 3], and each one's solid [N].

    Uniform by area, then what another solid hides is dropped, then points closer than SPACING to a kept one. The same
    in every colour.
    """
    solids = KINDS[kind](WHITE)
    rng = np.random.default_rng(list(KINDS).index(kind))
    points, normals, owner = [], [], []
    for index, solid in enumerate(solids):
        p, n = solid.sample(int(solid.area * 4 / SPACING**2) + 1, rng)
        hidden = np.any([other.contains(p) for other in solids if other is not solid], axis=0)
        points.append(p[~hidden])
        normals.append(n[~hidden])
        owner.append(np.full(np.count_nonzero(~hidden), index))
    p, n, o = np.concatenate(points), np.concatenate(normals), np.concatenate(owner)
    order = rng.permutation(len(p))
    p, n, o = p[order], n[order], o[order]
    kept = np.ones(len(p), dtype=bool)
    for index, near in enumerate(cKDTree(p).query_ball_point(p, SPACING)):
        if kept[index]:
            kept[[k for k in near if k > index]] = False
    return p[kept], n[kept], o[kept]


@cache
def toy(kind: str, color: str) -> Toy:
    """The toy of that kind (a key of KINDS) whose named part has that colour (a key of COLORS)."""
    if kind not in KINDS or color not in COLORS:
        raise ValueError(
            f"no toy {color!r} {kind!r}: kinds are {', '.join(KINDS)}; colours {', '.join(COLORS)}"
        )
    points, normals, owner = _surface(kind)
    colors = np.zeros_like(points)
    for index, solid in enumerate(KINDS[kind](COLORS[color])):
        mine = owner == index
        paint = solid.paint
        colors[mine] = paint(points[mine], normals[mine]) if callable(paint) else np.asarray(paint)
    light = 0.5 + 0.5 * (0.5 + 0.5 * normals @ LIGHT)
    return Toy(kind, color, points, normals, colors * light[:, None])
