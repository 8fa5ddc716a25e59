"""Toys: 16 kinds in 10 colours, some of them on a table, as coloured surface samples of exact solids.

World units: a toy fits in a ball of radius 1 around the origin; z is up and its front faces +x, the camera at
azimuth 0. Left and right are mirror images, since no prompt can name the side it means. A toy of one name is
always the same toy, so that what is distilled can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

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
    "pink": (0.97, 0.56, 0.74),
    "turquoise": (0.08, 0.74, 0.72),
    "brown": (0.50, 0.29, 0.13),
    "black": (0.13, 0.13, 0.15),
}
WHITE, BLACK, GREY = (0.95, 0.95, 0.95), (0.05, 0.05, 0.06), (0.42, 0.43, 0.46)
BEIGE, BROWN, DARK, GLASS = (0.87, 0.80, 0.65), (0.42, 0.25, 0.12), (0.33, 0.17, 0.13), (0.55, 0.78, 0.92)
BEAK, TAIL_LAMP, LAMP, BRICK = (0.95, 0.55, 0.05), (0.75, 0.05, 0.05), (1.0, 0.95, 0.70), (0.60, 0.22, 0.18)
STONE, DOUGH, LEAF, STEEL = (0.66, 0.64, 0.60), (0.83, 0.60, 0.34), (0.20, 0.46, 0.20), (0.62, 0.64, 0.68)

SPACING = 0.019
"""Least distance between two surface samples in world units: about a pixel of a 128 px view."""

LIGHT = np.array([0.5, 0.0, 0.85]) / np.hypot(0.5, 0.85)
"""Direction towards the light, which stands above and in front: a back is darker than a front."""

Mask = NDArray[np.bool_]
Where = Callable[[Array, Array], Mask]


class Name(NamedTuple):
    """Kind of a toy (a key of KINDS) and its colour (of COLORS), and the colour of the table that it stands
    on, if it does.
    """

    kind: str
    color: str
    on: str | None = None


@dataclass(frozen=True)
class Toy:
    """Surface samples: points [N, 3], outward unit normals [N, 3], colours [N, 3] in [0, 1], light baked in."""

    points: Array
    normals: Array
    colors: Array


def painted(base: RGB, *spots: tuple[Where, RGB]) -> Paint:
    """Paint with coloured regions over `base`, each given by where(points, normals) → mask."""

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
    rings = (((0, 72, 144, 216, 288), 0.60, 0.24), ((36, 108, 180, 252, 324), 0.37, 0.43))
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
        torus(0.26, 0.08, color).moved((-0.50, 0, 0), rotation("x", 90)),
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
        box((0.09, 0.09, 0.16), BRICK).moved((-0.28, 0, 0.64)),
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


def tree(color: RGB) -> list[Solid]:
    return [
        frustum(0.13, 0.11, 0.40, BROWN).moved((0, 0, -0.90)),
        frustum(0.58, 0.22, 0.46, color).moved((0, 0, -0.55)),
        frustum(0.46, 0.16, 0.44, color).moved((0, 0, -0.14)),
        frustum(0.34, 0.01, 0.56, color).moved((0, 0, 0.26)),
    ]


def robot(color: RGB) -> list[Solid]:
    panel = ((pane(0, 1, (0, -0.06), (0.19, 0.15)), WHITE), (ball((0.26, 0, -0.06), 0.09), TAIL_LAMP))
    face = [(ball((0.20, y, 0.47), 0.075), BLACK) for y in (-0.11, 0.11)]
    mouth = (pane(0, 1, (0, 0.33), (0.13, 0.035)), BLACK)
    return [
        box((0.26, 0.32, 0.30), painted(color, *panel)).moved((0, 0, -0.12)),
        box((0.20, 0.25, 0.19), painted(STEEL, *face, mouth)).moved((0, 0, 0.42)),
        frustum(0.03, 0.03, 0.14, BLACK).moved((0, 0, 0.60)),
        ellipsoid((0.08, 0.08, 0.08), color).moved((0, 0, 0.78)),
        *[box((0.09, 0.08, 0.25), STEEL).moved((0, y, -0.12)) for y in (-0.43, 0.43)],
        *[box((0.11, 0.10, 0.18), STEEL).moved((0, y, -0.60)) for y in (-0.17, 0.17)],
        *[box((0.20, 0.13, 0.07), color).moved((0.06, y, -0.79)) for y in (-0.17, 0.17)],
    ]


def table(color: RGB) -> list[Solid]:
    legs = [
        box((0.065, 0.065, 0.34), BROWN).moved((x, y, -0.24)) for x in (-0.38, 0.38) for y in (-0.60, 0.60)
    ]
    return [box((0.48, 0.70, 0.07), color).moved((0, 0, 0.17)), *legs]


def lamp(color: RGB) -> list[Solid]:
    glow = (lambda p, n: n[:, 2] < -0.9, LAMP)
    return [
        frustum(0.34, 0.28, 0.08, STEEL).moved((0, 0, -0.86)),
        frustum(0.05, 0.05, 0.96, STEEL).moved((0, 0, -0.80)),
        frustum(0.50, 0.27, 0.56, painted(color, glow)).moved((0, 0, 0.10)),
    ]


def cactus(color: RGB) -> list[Solid]:
    arms = [ellipsoid((0.10, 0.24, 0.10), LEAF).moved((0, y, 0.02)) for y in (-0.30, 0.30)]
    hands = [ellipsoid((0.10, 0.10, 0.25), LEAF).moved((0, y, 0.20)) for y in (-0.46, 0.46)]
    return [
        frustum(0.24, 0.34, 0.36, color).moved((0, 0, -0.86)),
        frustum(0.39, 0.39, 0.09, color).moved((0, 0, -0.52)),
        ellipsoid((0.23, 0.23, 0.62), LEAF).moved((0, 0, 0.06)),
        *arms,
        *hands,
        ellipsoid((0.14, 0.14, 0.08), color).moved((0, 0, 0.68)),
    ]


def donut(color: RGB) -> list[Solid]:
    """Upright donut, its icing in front."""

    def iced(p: Array, n: Array) -> Mask:
        angle = np.arctan2(p[:, 1], p[:, 2])
        return p[:, 0] > 0.05 * np.cos(8 * angle) - 0.14

    sprinkles = [
        (ball((0.25, r * np.sin(a), r * np.cos(a)), 0.07), WHITE)
        for a, r in zip(np.radians(np.arange(0, 360, 45)), (0.45, 0.61) * 4)
    ]
    return [torus(0.53, 0.27, painted(DOUGH, (iced, color), *sprinkles)).moved((0, 0, 0), rotation("y", 90))]


def castle(color: RGB) -> list[Solid]:
    gate = (lambda p, n: (p[:, 0] > 0) & (np.abs(p[:, 1]) < 0.16) & (p[:, 2] < -0.38), BROWN)
    window = (ball((0.38, 0, -0.06), 0.11), BLACK)
    crown = [
        box((0.08, 0.07, 0.09), STONE).moved((0.40 * np.cos(a), 0.40 * np.sin(a), 0.30), rotation("z", np.degrees(a)))
        for a in np.radians([0, 45, 90, 135, 180, 225, 270, 315])
    ]  # fmt: skip
    return [
        frustum(0.46, 0.46, 0.10, color).moved((0, 0, -0.86)),
        frustum(0.40, 0.36, 0.92, painted(STONE, gate, window)).moved((0, 0, -0.76)),
        frustum(0.46, 0.46, 0.12, STONE).moved((0, 0, 0.12)),
        *crown,
        frustum(0.34, 0.01, 0.60, color).moved((0, 0, 0.24)),
    ]


def boat(color: RGB) -> list[Solid]:
    deck, keel = ((0.86, 0.0), (0.36, 0.34), (-0.70, 0.28)), ((0.50, 0.0), (0.22, 0.17), (-0.56, 0.15))
    hull = np.array(
        [(x, s * y, z) for side, z in ((deck, -0.16), (keel, -0.56)) for x, y in side for s in (-1, 1)]
    )
    planks = (lambda p, n: n[:, 2] > 0.9, BEIGE)
    panes = [(pane(0, 1, (0, 0.06), (0.15, 0.08)), GLASS)]
    panes += [(pane(1, s, (x, 0.06), (0.08, 0.08)), GLASS) for s in (-1, 1) for x in (-0.34, -0.06)]
    soot = (lambda p, n: p[:, 2] > 0.46, BLACK)
    return [
        polyhedron(hull[[0, 2, 3, 4, 5, 6, 8, 9, 10, 11]], painted(color, planks)),
        box((0.30, 0.22, 0.20), painted(WHITE, *panes)).moved((-0.20, 0, 0.02)),
        frustum(0.13, 0.13, 0.36, painted(color, soot)).moved((-0.28, 0, 0.20)),
    ]


KINDS: dict[str, Callable[[RGB], list[Solid]]] = {
    build.__name__: build
    for build in (
        mushroom, snowman, mug, car, rocket, house, duck, chair, tree, robot, table, lamp, cactus, donut, castle, boat,
    )
}  # fmt: skip
FACELESS = ("mushroom", "tree", "table", "lamp", "cactus")
"""Kinds whose back is as their front, but for the light."""
ROUND = ("mushroom", "snowman", "rocket", "tree", "lamp", "castle")
"""Kinds that still are themselves to a person's eye (or nearly so) when turned about their axis."""
ON_TABLES = ("mug", "duck", "robot", "cactus")
"""Kinds that may stand on a table."""
TABLE_SCALE, ON_TABLE_SCALE, TABLE_TOP = 0.76, 0.52, -0.10
"""Scales of a table and of what stands on it, beside themselves alone, and the height of the table's top then."""


def _solids(name: Name) -> list[Solid]:
    solids = KINDS[name.kind](COLORS[name.color])
    if name.on is None:
        return solids
    below = KINDS["table"](COLORS[name.on])
    foot = _bottom(name.kind) * ON_TABLE_SCALE
    return [
        *(solid.placed(TABLE_SCALE, (0, 0, TABLE_TOP - 0.24 * TABLE_SCALE)) for solid in below),
        *(solid.placed(ON_TABLE_SCALE, (0, 0, TABLE_TOP - foot)) for solid in solids),
    ]


def _bottom(kind: str) -> float:
    """Least z of that kind alone."""
    return float(_surface(kind, False)[0][:, 2].min())


@cache
def _surface(kind: str, on_table: bool) -> tuple[Array, Array, NDArray[np.int64]]:
    """Blue-noise samples of the visible surface of a kind: points, normals [N, 3], and each one's solid [N].

    Uniform by area, then what another solid hides is dropped, then points closer than SPACING to a kept one. The same
    in every colour.
    """
    color = next(iter(COLORS))
    solids = _solids(Name(kind, color, color if on_table else None))
    rng = np.random.default_rng(list(KINDS).index(kind))
    points, normals, owner = [], [], []
    for index, solid in enumerate(solids):
        p, n = solid.sample(int(solid.area * 4 / SPACING**2) + 1, rng)
        others = [other.contains(p) for other in solids if other is not solid]
        hidden = np.any([np.zeros(len(p), bool), *others], axis=0)
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
def toy(name: Name) -> Toy:
    """The toy of that name. Raises ValueError if there is none."""
    colors_known = name.color in COLORS and (name.on is None or name.on in COLORS)
    if name.kind not in KINDS or not colors_known or (name.on is not None and name.kind not in ON_TABLES):
        raise ValueError(
            f"no toy {tuple(name)}: kinds are {', '.join(KINDS)}, on a table {', '.join(ON_TABLES)}; "
            f"colours {', '.join(COLORS)}"
        )
    points, normals, owner = _surface(name.kind, name.on is not None)
    colors = np.zeros_like(points)
    for index, solid in enumerate(_solids(name)):
        mine = owner == index
        paint = solid.paint
        colors[mine] = paint(points[mine], normals[mine]) if callable(paint) else np.asarray(paint)
    light = 0.5 + 0.5 * (0.5 + 0.5 * normals @ LIGHT)
    return Toy(points, normals, colors * light[:, None])
