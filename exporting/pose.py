"""Size and height at which an asset is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scene.axes import direction
from scene.gaussian_model import GaussianModel
from utils.axes import parts
from utils.rotation import quaternion_to_matrix

VISIBLE = 0.1
"""Opacity from which on a Gaussian counts for where the asset is."""
STRAYS = 0.001
"""Share of the Gaussians, at each end of each axis, that may lie outside the bounds."""


@dataclass(frozen=True)
class Pose:
    """Factor by which an asset is scaled around the origin, and how far it is lifted then, in units of the file."""

    scale: float = 1.0
    lift: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether anything moves."""
        return self != Pose()

    def in_units(self, unit: float) -> Pose:
        """The same pose in a file that has `unit` units where this pose has one."""
        return Pose(self.scale * unit, self.lift * unit)

    def points(self, points: Tensor, axes: str) -> Tensor:
        """Points [N, 3], float64, in `axes`, scaled and lifted."""
        return points * self.scale + self.rise(axes)

    def rise(self, axes: str) -> Tensor:
        """The lift [3], float64, in `axes`."""
        return direction(parts(axes)[0]) * self.lift

    def gaussians(self, raw: Mapping[str, Tensor], axes: str) -> dict[str, Tensor]:
        """Parameters of Gaussians in `axes`, on the host, scaled and lifted."""
        new = dict(raw)
        new["xyz"] = self.points(raw["xyz"].double(), axes).float()
        new["scaling"] = raw["scaling"] + math.log(self.scale)
        return new


def pose_for(bounds: Tensor, size: float | None, ground: bool) -> Pose:
    """Pose of an asset with bounds [2, 3] in our axes: its longest side `size` metres long, its lowest point at height 0."""
    low, high = bounds
    scale = 1.0 if size is None else size / float((high - low).max())
    return Pose(scale, -float(low[2]) * scale if ground else 0.0)


@torch.no_grad()
def bounds_of(gaussians: GaussianModel) -> Tensor:
    """Bounds [2, 3], float64, of what can be seen of Gaussians: each reaches one standard deviation far.

    Strays do not count, nor Gaussians that can hardly be seen.
    """
    seen = gaussians.opacities[:, 0] >= VISIBLE
    seen = seen if bool(seen.any()) else torch.ones_like(seen)
    turns = quaternion_to_matrix(gaussians.rotations[seen].double())
    reach = (turns * gaussians.scales[seen].double()[:, None]).norm(dim=-1)
    means = gaussians.means[seen].double()
    low, high = ((means - reach).sort(dim=0).values, (means + reach).sort(dim=0).values)
    strays = int(STRAYS * len(means))
    return torch.stack([low[strays], high[-1 - strays]]).cpu()
