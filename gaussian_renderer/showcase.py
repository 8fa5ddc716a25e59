"""Renders for people: test views and turntables, without gradients, a few views at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from gaussian_renderer import Gaussians, render
from gaussian_renderer.activated import Activated
from scene.cameras import Cameras, turntable
from utils.device import HOST
from utils.media import Pixels, depth_image, depth_span, to_pixels

VIEWS_AT_ONCE = 8
NUM_VIEWS = 120
"""Views around an asset that is judged, as in Consistent3D and SegmentDreamer (Sec. 5.2)."""


class Shown(NamedTuple):
    """V views on the host: rgb [V, 3, H, W] in [0, 1] and depth [V, 3, H, W] as a picture."""

    rgb: Tensor
    depth: Tensor


class ShownPixels(NamedTuple):
    """V views and their depth as a picture, on the Gaussians' device."""

    rgb: Pixels
    depth: Pixels


@torch.no_grad()
def show(
    gaussians: Gaussians, cameras: Cameras, *, white: bool, ssaa: int = 1, antialiasing: bool = False
) -> Shown:
    """Render all V views on white or black, averaged over blocks of ssaa × ssaa pixels."""
    batches = [
        [image.to(HOST) for image in batch]
        for batch in _renders(gaussians, cameras, white, ssaa, antialiasing)
    ]
    rgb, depth, alpha = (torch.cat(images) for images in zip(*batches))
    return Shown(rgb, depth_image(depth, alpha))


@torch.no_grad()
def show_pixels(
    gaussians: Gaussians, cameras: Cameras, *, white: bool, ssaa: int = 1, antialiasing: bool = False
) -> ShownPixels:
    """Render what `show` shows, as pixels, without waiting for the device.

    Each view's depth and alpha stay there in float32 until all are rendered: 8 bytes per pixel, 250 MB for 120
    views of 512².
    """
    pictures: list[Pixels] = []
    depths: list[Tensor] = []
    alphas: list[Tensor] = []
    for rgb, depth, alpha in _renders(gaussians, cameras, white, ssaa, antialiasing):
        pictures.append(to_pixels(rgb))
        depths.append(depth)
        alphas.append(alpha)
    nearest, farthest = (torch.stack(ends) for ends in zip(*map(depth_span, depths, alphas)))
    span = nearest.amin(), farthest.amax()
    colored = [to_pixels(depth_image(depth, alpha, span)) for depth, alpha in zip(depths, alphas)]
    return ShownPixels(Pixels.join(pictures), Pixels.join(colored))


def _renders(
    gaussians: Gaussians, cameras: Cameras, white: bool, ssaa: int, antialiasing: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield rgb in [0, 1], depth and alpha of VIEWS_AT_ONCE views at a time, on the Gaussians' device."""
    device = gaussians.means.device
    background = torch.full((3,), 1.0 if white else 0.0, device=device)
    for start in range(0, len(cameras), VIEWS_AT_ONCE):
        some = cameras[start : start + VIEWS_AT_ONCE].to(device)
        out = render(gaussians, some, background, antialiasing=antialiasing)
        rgb, depth, alpha = (F.avg_pool2d(image, ssaa) for image in (out.rgb, out.depth, out.alpha))
        yield rgb.clamp(0, 1), depth, alpha


def views_of(gaussians: Gaussians, config: Config, count: int = NUM_VIEWS) -> Tensor:
    """Render views [count, 3, H, W] float32 in [0, 1] on white, on the host.

    They go once around at `default_polar`, from the front on.
    """
    c = config.camera
    around = turntable(c, count)
    return show(gaussians, around, white=True, ssaa=c.SSAA, antialiasing=config.pipeline.antialiasing).rgb


@torch.no_grad()
def solid(gaussians: Gaussians) -> Activated:
    """Return the Gaussians so that their shape is seen: the most opaque one becomes opaque, the others in proportion.

    Gaussians that get much more opaque, as those of a start with one faint opacity do, also get smaller, by a
    third at most. They overlap so far that together they would look fatter than they are. A finished asset
    stays as it is.
    """
    strength = gaussians.opacities.max().clamp_min(1e-6)
    return replace(
        Activated.of(gaussians),
        scales=gaussians.scales * strength.clamp_min(2 / 3),
        opacities=gaussians.opacities / strength,
    )
