"""Camera of a browser, and paths through several such views."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from config import Config
from scene.cameras import Cameras, orbit

CLOSEST = 1e-6
"""World units between a camera and its target, at least."""


@dataclass(frozen=True)
class Orbit:
    """Camera that looks at `target` (world units) with z up.

    azimuth and polar in degrees and radius in world units, as in scene.cameras; fovy, the full vertical
    angle, in radians.
    """

    target: tuple[float, float, float]
    azimuth: float
    polar: float
    radius: float
    fovy: float

    @staticmethod
    def of(position: Iterable[float], target: Iterable[float], fovy: float) -> Orbit:
        """The camera at `position`; one that has come to its target looks down on it from hardly above."""
        x, y, z = (float(a) - float(b) for a, b in zip(position, target))
        across = math.hypot(x, y)
        azimuth, polar = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(across, z))
        radius = max(math.hypot(across, z), CLOSEST)
        first, second, third = (float(value) for value in target)
        return Orbit((first, second, third), azimuth, polar, radius, float(fovy))

    @staticmethod
    def front(config: Config) -> Orbit:
        """The camera at which a run's turntable begins."""
        camera = config.camera
        return Orbit(
            (0.0, 0.0, 0.0),
            camera.default_azimuth,
            camera.default_polar,
            camera.default_radius,
            camera.default_fovy,
        )

    @property
    def position(self) -> tuple[float, float, float]:
        """Position of the camera, in world units."""
        azimuth, polar = math.radians(self.azimuth), math.radians(self.polar)
        direction = (
            math.sin(polar) * math.cos(azimuth),
            math.sin(polar) * math.sin(azimuth),
            math.cos(polar),
        )
        x, y, z = (t + self.radius * d for t, d in zip(self.target, direction))
        return x, y, z

    def turned(self, degrees: float) -> Orbit:
        return replace(self, azimuth=self.azimuth + degrees)

    def farther(self, factor: float) -> Orbit:
        return replace(self, radius=self.radius * factor)


def fitted(fovy: float, aspect: float) -> float:
    """The full vertical angle, in radians, at which a picture shows `fovy` along its shorter side.

    aspect: its width divided by its height.
    """
    return 2 * math.atan(math.tan(fovy / 2) / min(1.0, aspect))


def cameras_at(orbits: Sequence[Orbit], width: int, height: int) -> Cameras:
    """Cameras of width × height pixels, one for each view, on the host."""
    return orbit(
        [o.azimuth for o in orbits],
        [o.polar for o in orbits],
        [o.radius for o in orbits],
        [o.fovy for o in orbits],
        width,
        height,
        center=torch.tensor([o.target for o in orbits], dtype=torch.float64),
    )


def around(start: Orbit, frames: int) -> list[Orbit]:
    """Cameras once around from `start` on."""
    return [start.turned(360.0 * frame / frames) for frame in range(frames)]


def path(views: Sequence[Orbit], frames: int) -> list[Orbit]:
    """A smooth way through all `views`, two or more, from the first to the last: natural cubic splines.

    They are splines in angles and the logarithm of the radius, so that the way goes around the target and not
    through it, the shorter way.
    """
    if len(views) < 2:
        raise ValueError(f"A path through {len(views)} views needs at least 2.")
    azimuth = np.unwrap([view.azimuth for view in views], period=360.0)
    knots = np.array(
        [
            [*view.target, angle, view.polar, math.log(view.radius), view.fovy]
            for view, angle in zip(views, azimuth)
        ]
    )
    spline = CubicSpline(np.arange(len(views)), knots, bc_type="natural")
    found = []
    for *target, angle, polar, log_radius, fovy in spline(np.linspace(0, len(views) - 1, frames)).tolist():
        # Between views near a pole, a spline may swing across it.
        polar = min(max(polar, 1.0), 179.0)
        found.append(Orbit((target[0], target[1], target[2]), angle, polar, math.exp(log_radius), fovy))
    return found
