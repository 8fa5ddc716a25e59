"""Pictures of a guide, as ControlNets were trained to see them: one function for each kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gaussian_renderer.pose_picture import pose
from gaussian_renderer.surface import Surface, blurred, surface
from scene.cameras import Cameras
from scene.guide_shape import GuideShape

EDGE = 0.06
"""Change from pixel to pixel, after a blur, from which there is a line: that of a step of about a sixth of the range."""
SOFTNESS = 1.0
"""Standard deviation of that blur, in pixels."""


@torch.no_grad()
def guide_pictures(
    shape: GuideShape, cameras: Cameras, kinds: Sequence[str], size: int, *, mirrored: bool
) -> Tensor:
    """Return pictures [V, kinds, size, size] with 3 channels each, [V, kinds, 3, size, size] in [0, 1], on the shape's device.

    They show what images of these cameras (host) show, made `size` pixels wide and high; mirrored, if those are.
    """
    cameras, device = cameras.resized(size, size), shape.gaussians.device
    found: dict[str, Tensor] = {}
    if POSE in kinds:
        assert shape.keypoints is not None
        found[POSE] = pose(shape.keypoints, cameras, mirrored=mirrored, device=device)
    if {*kinds} != {POSE}:
        seen = surface(shape.gaussians, shape.normals, cameras.to(device))
        if mirrored:
            seen = seen.mirrored()
        found |= {kind: PICTURES[kind](seen) for kind in kinds if kind != POSE}
    return torch.stack([found[kind] for kind in kinds], dim=1)


def depth(seen: Surface) -> Tensor:
    """Draw inverse depth [V, 3, H, W], as MiDaS gives it: of each view the nearest place is 1, the farthest 0; black beside."""
    inverse = 1 / seen.depth.clamp_min(1e-6)
    # At a rim what is behind is seen too, unless all is rim.
    rim = F.max_pool2d((~seen.covered).to(inverse), 5, 1, 2) > 0
    beside = torch.where(rim.all(dim=-1, keepdim=True).all(dim=-2, keepdim=True), ~seen.covered, rim)
    low = inverse.masked_fill(beside, math.inf).amin(dim=(1, 2, 3), keepdim=True)
    high = inverse.masked_fill(beside, -math.inf).amax(dim=(1, 2, 3), keepdim=True)
    near = (inverse - low) / (high - low).clamp_min(1e-8)
    return torch.where(seen.covered, near.clamp(0, 1), 0).expand(-1, 3, -1, -1)


def normal(seen: Surface) -> Tensor:
    """Draw normals [V, 3, H, W]: (n + 1) / 2 with x to the right, y up, z to the viewer, whom the background faces."""
    return 0.5 + 0.5 * seen.normals


def mask(seen: Surface) -> Tensor:
    """Draw the shape [V, 3, H, W] white on black."""
    return seen.covered.to(seen.rgb).expand(-1, 3, -1, -1)


def outline(seen: Surface) -> Tensor:
    """Draw lines [V, 3, H, W], white on black and a pixel or two wide, where colours, normals or depth change, or the shape ends."""
    channels = torch.cat([seen.rgb, 0.5 * seen.normals, 0.5 * depth(seen)[:, :1], mask(seen)[:, :1]], dim=1)
    soft = blurred(channels, SOFTNESS)
    right, down = torch.zeros_like(soft), torch.zeros_like(soft)
    right[..., 1:-1] = (soft[..., 2:] - soft[..., :-2]) / 2
    down[..., 1:-1, :] = (soft[..., 2:, :] - soft[..., :-2, :]) / 2
    strength, strongest = (right.square() + down.square()).sqrt().max(dim=1, keepdim=True)
    level = right.abs().gather(1, strongest) > down.abs().gather(1, strongest)
    # A line is where the change is the largest along its own direction, as in Canny's detector.
    beside = [
        torch.where(level, strength.roll(step, dims=-1), strength.roll(step, dims=-2)) for step in (1, -1)
    ]
    line = (strength > EDGE) & (strength >= beside[0]) & (strength >= beside[1])
    return line.to(seen.rgb).expand(-1, 3, -1, -1)


PICTURES: dict[str, Callable[[Surface], Tensor]] = {
    "depth": depth,
    "normal": normal,
    "outline": outline,
    "mask": mask,
}
"""`controlnet_kinds` -> its picture of a surface."""
POSE = "pose"
"""The kind that is a picture of a skeleton."""
