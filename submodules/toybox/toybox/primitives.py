"""Solid primitives that sample their own surface by area and know what lies inside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sampler = Callable[[int, np.random.Generator], tuple[Array, Array]]
RGB = tuple[float, float, float]
Paint = RGB | Callable[[Array, Array], Array]
"""Paint of a solid: a colour, or a function (world points [N, 3], normals [N, 3]) → colours [N, 3]."""


@dataclass(frozen=True)
class Solid:
    """Closed surface.

    sample(n, rng) returns points and outward unit normals [n, 3], uniform by area; contains(points [N, 3])
    returns which lie strictly inside, so that a union of solids can drop the surface that it hides.
    """

    area: float
    sample: Sampler
    contains: Callable[[Array], NDArray[np.bool_]]
    paint: Paint

    def moved(self, offset: tuple[float, float, float], rotation: Array | None = None) -> Solid:
        """Solid rotated by `rotation` [3, 3] about the origin, then translated by `offset`."""
        shift, turn = np.asarray(offset), np.eye(3) if rotation is None else rotation

        def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
            points, normals = self.sample(n, rng)
            return points @ turn.T + shift, normals @ turn.T

        return Solid(self.area, sample, lambda p: self.contains((p - shift) @ turn), self.paint)

    def placed(self, scale: float, offset: tuple[float, float, float]) -> Solid:
        """Solid scaled about the origin, then translated by `offset`, and its paint with it."""
        shift, paint = np.asarray(offset), self.paint

        def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
            points, normals = self.sample(n, rng)
            return points * scale + shift, normals

        def painted(points: Array, normals: Array) -> Array:
            return (
                paint((points - shift) / scale, normals)
                if callable(paint)
                else np.tile(paint, (len(points), 1))
            )

        return Solid(self.area * scale**2, sample, lambda p: self.contains((p - shift) / scale), painted)


def rotation(axis: str, degrees: float) -> Array:
    """Right-handed rotation matrix [3, 3] about a coordinate axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def ellipsoid(radii: tuple[float, float, float], paint: Paint) -> Solid:
    """Ellipsoid centred at the origin, half axes `radii`."""
    r = np.asarray(radii)

    def directions(n: int, rng: np.random.Generator) -> Array:
        u = rng.standard_normal((n, 3))
        return u / np.linalg.norm(u, axis=1, keepdims=True)

    def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        kept = np.zeros((0, 3))
        while (
            len(kept) < n
        ):  # the area element relative to the unit sphere's is abc‖u/r‖: accept in proportion
            u = directions(2 * n, rng)
            kept = np.concatenate([kept, u[rng.random(2 * n) < np.linalg.norm(u / r, axis=1) * r.min()]])
        u = kept[:n]
        normals = u / r
        return u * r, normals / np.linalg.norm(normals, axis=1, keepdims=True)

    u = directions(4096, np.random.default_rng(0))
    area = float(4 * np.pi * np.prod(r) * np.linalg.norm(u / r, axis=1).mean())
    return Solid(area, sample, lambda p: np.sum((p / r) ** 2, axis=1) < 1 - 1e-6, paint)


def frustum(bottom: float, top: float, height: float, paint: Paint) -> Solid:
    """Frustum along z from 0 to `height`, radius `bottom` → `top`, capped: cylinder, cone and disc in one."""
    slope = (top - bottom) / height
    slant = float(np.hypot(height, top - bottom))
    areas = np.array([np.pi * (bottom + top) * slant, np.pi * bottom**2, np.pi * top**2])

    def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        which = rng.choice(3, n, p=areas / areas.sum())
        angle, q = rng.random(n) * 2 * np.pi, rng.random(n)
        # On the side the density in z is proportional to the radius there: invert its quadratic CDF.
        side_radius = np.sqrt(bottom**2 + q * (top**2 - bottom**2))
        z = height * q if slope == 0 else (side_radius - bottom) / slope
        radius = np.select([which == 0, which == 1], [side_radius, bottom * np.sqrt(q)], top * np.sqrt(q))
        z = np.select([which == 0, which == 1], [z, np.zeros(n)], np.full(n, height))
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        normals = np.zeros((n, 3))
        normals[:, :2] = np.where((which == 0)[:, None], ring * height / slant, 0)
        normals[:, 2] = np.select(
            [which == 0, which == 1], [np.full(n, -(top - bottom) / slant), -np.ones(n)], 1
        )
        return np.column_stack([ring * radius[:, None], z]), normals

    def contains(p: Array) -> NDArray[np.bool_]:
        inside = (p[:, 2] > 1e-6) & (p[:, 2] < height - 1e-6)
        return inside & (np.hypot(p[:, 0], p[:, 1]) < bottom + slope * p[:, 2] - 1e-6)

    return Solid(float(areas.sum()), sample, contains, paint)


def torus(major: float, minor: float, paint: Paint) -> Solid:
    """Torus around the z axis."""

    def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        v = np.zeros(0)
        while len(v) < n:
            trial = rng.random(2 * n) * 2 * np.pi
            v = np.concatenate(
                [v, trial[rng.random(2 * n) < (major + minor * np.cos(trial)) / (major + minor)]]
            )
        u, v = rng.random(n) * 2 * np.pi, v[:n]
        normals = np.column_stack([np.cos(v) * np.cos(u), np.cos(v) * np.sin(u), np.sin(v)])
        return np.column_stack([major * np.cos(u), major * np.sin(u), np.zeros(n)]) + minor * normals, normals

    def contains(p: Array) -> NDArray[np.bool_]:
        return np.hypot(np.hypot(p[:, 0], p[:, 1]) - major, p[:, 2]) < minor - 1e-6

    return Solid(4 * np.pi**2 * major * minor, sample, contains, paint)


def polyhedron(corners: Array, paint: Paint) -> Solid:
    """Convex hull of `corners` [N, 3]."""
    from scipy.spatial import ConvexHull

    hull = ConvexHull(corners)
    a, b, c = (corners[hull.simplices[:, k]] for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2

    def sample(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        face = rng.choice(len(areas), n, p=areas / areas.sum())
        root, v = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
        points = (1 - root) * a[face] + root * (1 - v) * b[face] + root * v * c[face]
        return points, hull.equations[face, :3]

    def contains(p: Array) -> NDArray[np.bool_]:
        return np.all(p @ hull.equations[:, :3].T + hull.equations[:, 3] < -1e-6, axis=1)

    return Solid(float(areas.sum()), sample, contains, paint)


def box(half: tuple[float, float, float], paint: Paint, taper: tuple[float, float] = (1.0, 1.0)) -> Solid:
    """Box centred at the origin with half sizes `half`; `taper` scales x and y of the upper face."""
    signs = np.array([(i, j, k) for i in (-1.0, 1.0) for j in (-1.0, 1.0) for k in (-1.0, 1.0)])
    corners = signs * np.asarray(half)
    corners[signs[:, 2] > 0, :2] *= np.asarray(taper)
    return polyhedron(corners, paint)
