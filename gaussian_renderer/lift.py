"""Masks of views, lifted to the Gaussians that are seen in them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gaussian_renderer import render
from scene.cameras import Cameras
from scene.gaussian_model import GaussianModel
from utils.spherical_harmonics import rgb_to_dc


def lift(gaussians: GaussianModel, views: Iterable[tuple[Cameras, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return how much [N] of each Gaussian is seen in all views, and how much of that is in their masks, both in pixels.

    views: cameras of one view each, and its mask [H, W] in [0, 1], which may be of another size than the camera.
    """
    seen = torch.zeros(len(gaussians), device=gaussians.device)
    inside = torch.zeros_like(seen)
    for camera, mask in views:
        height, width = mask.shape
        # What a Gaussian adds to the picture is the picture's slope in its colour.
        grey = rgb_to_dc(torch.full((len(gaussians), 1, 3), 0.5, device=gaussians.device)).requires_grad_()
        black = torch.zeros(3, device=gaussians.device)
        with torch.enable_grad():
            out = render(
                gaussians, camera.resized(width, height).to(gaussians.device), black, sh_degree=0, shs=grey
            )
            total = out.rgb[0, 0].sum() + (out.rgb[0, 1] * mask.to(gaussians.device)).sum()
            [slope] = torch.autograd.grad(total, grey)
        seen += slope[:, 0, 0]
        inside += slope[:, 0, 1]
    return seen, inside
