"""Views of an asset from all around: its mesh and its texture are made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gaussian_renderer import Gaussians, render
from gaussian_renderer.activated import Activated
from scene.cameras import Cameras, orbit, spiral
from scene.projection import project

FIELD_OF_VIEW = math.radians(25.0)
"""Vertical angle of a view: narrow, so that pixels are of one size on the whole asset."""
VISIBLE = 0.1
"""Opacity from which on a Gaussian counts for where the asset is."""
STRAYS = 0.001
"""Share of the Gaussians, at each end of each axis, that may lie outside the box."""
MARGIN = 3.0
"""Margin around the box of the means, in grains."""
FRONT_PASSES = 2


@dataclass(frozen=True)
class Box:
    """Box to be looked at: its corners low and high [3], on the host, and the grain, all in world units.

    The grain is the size of a middling Gaussian along its longest axis, one standard deviation: what is finer
    than that is no shape, but gaps between Gaussians.
    """

    low: Tensor
    high: Tensor
    grain: float

    @property
    def middle(self) -> Tensor:
        """Middle [3] of the box."""
        return (self.low + self.high) / 2

    @property
    def longest(self) -> float:
        """The longest side."""
        return float((self.high - self.low).max())

    @property
    def radius(self) -> float:
        """Radius of the ball around the box."""
        return float((self.high - self.low).norm()) / 2


@torch.no_grad()
def box_of(gaussians: Gaussians) -> Box:
    """The box around all Gaussians that can be seen, but strays."""
    opaque = gaussians.opacities[:, 0] >= VISIBLE
    seen = opaque if bool(opaque.any()) else torch.ones_like(opaque)
    grain = max(float(gaussians.scales[seen].amax(dim=1).median()), 1e-6)
    means = gaussians.means[seen].sort(dim=0).values.cpu()
    strays = int(STRAYS * len(means))
    return Box(means[strays] - MARGIN * grain, means[-1 - strays] + MARGIN * grain, grain)


def around(box: Box, count: int, size: int, device: torch.device) -> Cameras:
    """`count` cameras of size × size pixels evenly all around the box, which fills their view."""
    azimuth, polar = spiral(count)
    distance = box.radius / math.sin(FIELD_OF_VIEW / 2)
    middle = box.middle.double()
    return orbit(azimuth, polar, distance, FIELD_OF_VIEW, size, size, center=middle, device=device)


def size_for(box: Box, pixel: float, most: int) -> int:
    """The size of a view that has pixels of `pixel` world units in the middle of the box, at most `most`, at least 32."""
    return max(32, min(most, math.ceil(2 * box.radius / pixel)))


@torch.no_grad()
def front_depth(gaussians: Gaussians, camera: Cameras) -> Tensor:
    """The depth [S, S] of the surface that the one camera sees, in world units; infinite where less than half of a pixel
    is covered.

    A render's own depth is the mean over all that can be seen, and of assets with gaps that is far inside: the back
    shines through. So what lies behind the mean is left out, the mean taken again, and so on.
    """
    background = torch.zeros(3, device=gaussians.means.device)
    place = project(camera, gaussians.means)
    pixel = place.pixels(camera.width)
    depth = torch.full((camera.height, camera.width), torch.inf, device=background.device)
    covered: Tensor | None = None
    for _ in range(1 + FRONT_PASSES):
        part = Activated.of(gaussians, place.z <= depth.flatten()[pixel])
        out = render(part, camera, background)
        alpha = out.alpha[0, 0]
        solid = alpha >= 0.5
        covered = solid if covered is None else covered
        # Where the front alone covers too little, what it was the front of stays.
        depth = torch.where(covered & solid, out.depth[0, 0] / alpha.clamp_min(0.5), depth)
    return depth
