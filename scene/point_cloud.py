"""Coloured points, and the steps before they become Gaussians."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.axes import parts

NEAREST, FARTHEST = 0.25, 1.25
"""Size that a cloud must have, and reach that it may have, to be in view, in halves of the view's height."""
FITTED = 0.75
"""Final reach from its middle of a cloud that was not in view, in the same unit."""

AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class PointCloud:
    """Points [N, 3] in world units, and their colours [N, 3] in [0, 1] and normals [N, 3] of unit length, or None."""

    points: Tensor
    colors: Tensor | None
    normals: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points)

    def rows(self, index: Tensor) -> PointCloud:
        """Return the points that `index`, [M] whole numbers or [N] truth values, names."""
        colors, normals = (None if each is None else each[index] for each in (self.colors, self.normals))
        return PointCloud(self.points[index], colors, normals)

    def upright(self, axes: str) -> PointCloud:
        """Return the cloud turned as `upright` does it."""
        normals = None if self.normals is None else upright(self.normals, axes)
        return PointCloud(upright(self.points, axes), self.colors, normals)


def without_broken(cloud: PointCloud, name: str) -> PointCloud:
    """Keep the points whose numbers are all finite; a warning counts the others of the file `name`.

    Raises ValueError if no point is left.
    """
    values = cloud.points if cloud.colors is None else torch.cat([cloud.points, cloud.colors], dim=1)
    sound = torch.isfinite(values).all(dim=1)
    broken = len(cloud) - int(sound.sum())
    if broken == len(cloud):
        what = "only points that are not finite" if broken else "no points"
        raise ValueError(f"{name!r} holds {what}, but at least 1 is needed to start from.")
    if broken == 0:
        return cloud
    logging.warning("%r: %d of %d points are not finite and are left out.", name, broken, len(cloud))
    return cloud.rows(sound)


def thin(cloud: PointCloud, count: int, rng: torch.Generator) -> PointCloud:
    """Keep at most `count` points of the cloud: a random subset, in the old order."""
    if len(cloud) <= count:
        return cloud
    return cloud.rows(torch.randperm(len(cloud), generator=rng)[:count].sort().values)


def upright(points: Tensor, axes: str) -> Tensor:
    """Turn points [N, 3] so that up is +z and the front +x, as the cameras have them.

    `axes` names the directions that point up and to the front so far, such as 'y,z' or 'z,-y'. A rotation: nothing is
    mirrored, but points whose axes are left-handed, such as 'y,z,left'.
    """
    first, second, left_handed = parts(axes)
    up, front = (_direction(name).to(points) for name in (first, second))
    left = torch.linalg.cross(up, front)
    return points @ torch.stack([front, -left if left_handed else left, up], dim=1)


def _direction(name: str) -> Tensor:
    sign = -1.0 if name.startswith("-") else 1.0
    return sign * torch.tensor(AXES[name[-1]])


@dataclass(frozen=True)
class Fit:
    """Move of points into view: their middle [3] (float64) goes to the origin, and distances are multiplied."""

    middle: Tensor
    factor: float

    def __call__(self, points: Tensor) -> Tensor:
        """Move points [N, 3]."""
        return ((points.double() - self.middle) * self.factor).to(points.dtype)


def fit_of(points: Tensor, view: float, *, always: bool = False) -> Fit | None:
    """Find how points [N, 3] come to be shown well by the default camera, centred and scaled; None if they are already.

    `view` is half the height of what the default camera sees at the origin. Clouds stay where they are if they
    reach at most FARTHEST of it from the origin and are at least NEAREST in size. Beyond FARTHEST, a cloud as
    wide as high leaves the picture. Below NEAREST, it covers less than a twentieth of it, and the guidance sees
    background. Others are centred at the middle of their bounding box and scaled to FITTED. Size is the
    distance from there to the farthest point, all but the farthest hundredth: generated clouds have strays.
    `always` moves all: bodies have their origin at the feet or the chest, and are to be seen whole.
    """
    exact = points.double()
    low, high = exact.aminmax(dim=0)
    middle = (low + high) / 2.0
    centred = exact - middle
    nearly_all = math.ceil(0.99 * len(points))
    reach, size = (float(x.norm(dim=1).kthvalue(nearly_all).values) for x in (exact, centred))
    if not always and reach <= FARTHEST * view and size >= NEAREST * view:
        return None
    return Fit(middle, FITTED * view / size if size > 0.0 else 0.0)
