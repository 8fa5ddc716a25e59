"""Our renders with the kernel of another program: they prove that the kernel is why a program shows less."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diff_gaussian_rasterization import reference, scene
from gaussian_renderer import Gaussians
from scene.cameras import Cameras

BOX = 4.0
"""Standard deviations around a Gaussian that are drawn; beyond them opacity is below 1/2900."""

LEAST = -12.0
"""Logarithm of the standard deviation from which PlayCanvas counts its steps."""


@dataclass(frozen=True)
class Kernel:
    """How the opacity of a Gaussian falls off on the screen.

    reach: standard deviations at which it ends; lowered: whether it is lowered to be 0 there and stretched to be 1 in
    the middle; widened: what is added to the variances on the screen, in square pixels; paler: whether a Gaussian becomes
    paler for it; step: of logarithms of standard deviations in space, from `LEAST`, 0 for none.
    """

    reach: float
    lowered: bool = False
    widened: float = reference.DILATION
    paler: bool = False
    step: float = 0.0

    def __call__(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the opacity at squares of distances, in standard deviations."""
        end = math.exp(-0.5 * self.reach**2) if self.lowered else 0.0
        return np.where(squares <= self.reach**2, (np.exp(-0.5 * squares) - end) / (1 - end), 0.0)


OURS = Kernel(math.inf)


@torch.no_grad()
def drawn(
    gaussians: Gaussians, cameras: Cameras, kernel: Kernel, sh_degree: int
) -> list[NDArray[np.float64]]:
    """Pictures [H, W, 3] in [0, 1] over white, drawn from back to front with the projection of our reference."""
    scales = gaussians.scales
    if kernel.step > 0:
        scales = (LEAST + kernel.step * ((scales.log() - LEAST) / kernel.step).round()).exp()
    flat = scene.Gaussians(
        means=gaussians.means,
        opacities=gaussians.opacities[:, 0],
        scales=scales,
        rotations=gaussians.rotations,
        covariances=None,
        shs=gaussians.shs,
        colors=None,
    )
    views = scene.Views(
        viewmats=cameras.viewmats,
        focals=cameras.focals,
        principals=cameras.principals,
        backgrounds=torch.ones(len(cameras), 3),
        width=cameras.width,
        height=cameras.height,
        sh_degree=sh_degree,
        scale_modifier=1.0,
        near=0.01,
        antialiasing=kernel.paler,
    )
    flat, views = scene.map_tensors(flat, Tensor.double), scene.map_tensors(views, Tensor.double)
    return [_view(reference.project(flat, views, view), views, kernel) for view in range(len(cameras))]


def _view(seen: reference.Projected, views: scene.Views, kernel: Kernel) -> NDArray[np.float64]:
    picture = np.ones((views.height, views.width, 3))
    less = torch.tensor([1.0, 0.0, 1.0]) * (reference.DILATION - kernel.widened)
    seen = replace(seen, covariances=seen.covariances - less)
    spans = BOX * seen.covariances[:, [0, 2]].sqrt()
    lows = (seen.means - spans).ceil().clamp(min=0).int().numpy()
    ends = ((seen.means + spans).floor().int() + 1).clamp(max=max(views.width, views.height)).numpy()
    means, covariances = seen.means.numpy(), seen.covariances.numpy()
    opacities, colors = seen.opacities.numpy(), seen.colors.clamp(max=1).numpy()
    for index in seen.depths.argsort(descending=True).tolist():
        (left, top), (right, bottom) = lows[index], ends[index]
        dx = np.arange(left, min(right, views.width)) - means[index, 0]
        dy = np.arange(top, min(bottom, views.height))[:, None] - means[index, 1]
        xx, xy, yy = covariances[index]
        squares = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
        alphas = (opacities[index] * kernel(squares))[:, :, None]
        alphas = np.where(alphas < reference.MIN_ALPHA, 0.0, alphas.clip(max=reference.MAX_ALPHA))
        part = picture[top:bottom, left:right]
        part += alphas * (colors[index] - part)
    return picture
