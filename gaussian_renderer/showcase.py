"""Renders for people: test views and turntables, without gradients, a few views at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gaussian_renderer import Gaussians, render
from scene.cameras import Cameras
from utils.media import depth_image

VIEWS_AT_ONCE = 8


class Shown(NamedTuple):
    """rgb [V, 3, H, W] in [0, 1] and depth [V, 3, H, W] as a picture, both on the host."""

    rgb: Tensor
    depth: Tensor


@torch.no_grad()
def show(
    gaussians: Gaussians, cameras: Cameras, *, white: bool, ssaa: int = 1, antialiasing: bool = False
) -> Shown:
    """All V views on white or black, averaged over blocks of ssaa × ssaa pixels."""
    device = gaussians.means.device
    background = torch.full((3,), 1.0 if white else 0.0, device=device)
    rgb: list[Tensor] = []
    depth: list[Tensor] = []
    alpha: list[Tensor] = []
    for start in range(0, len(cameras), VIEWS_AT_ONCE):
        some = cameras[start : start + VIEWS_AT_ONCE].to(device)
        out = render(gaussians, some, background, antialiasing=antialiasing)
        for kept, image in ((rgb, out.rgb), (depth, out.depth), (alpha, out.alpha)):
            kept.append(F.avg_pool2d(image, ssaa).cpu())
    return Shown(torch.cat(rgb).clamp(0, 1), depth_image(torch.cat(depth), torch.cat(alpha)))


@dataclass(frozen=True)
class Solid:
    """Gaussians, some more opaque and smaller than they are: see `solid`."""

    sh_degree: int
    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    shs: Tensor


@torch.no_grad()
def solid(gaussians: Gaussians) -> Solid:
    """The same Gaussians so that their shape is seen: the most opaque one becomes opaque, the others in proportion.

    What gets much more opaque, as a start of one faint opacity does, also gets smaller, by a third at most: its Gaussians
    overlap so far that together they would look fatter than they are. A finished asset stays as it is.
    """
    strength = gaussians.opacities.max()
    return Solid(
        sh_degree=gaussians.sh_degree,
        means=gaussians.means,
        scales=gaussians.scales * strength.clamp_min(2 / 3),
        rotations=gaussians.rotations,
        opacities=gaussians.opacities / strength,
        shs=gaussians.shs,
    )
