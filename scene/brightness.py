"""Colours held in their range: too bright ones pulled back towards grey (Brightness-Equalised Generation, GCS-BEG), and
black ones kept where gradients reach them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from config.schema import OptimizationParams
from scene.gaussian_model import COLOR
from scene.optimizer import GaussianOptimizer
from utils.spherical_harmonics import rgb_to_dc

COVERED = 0.5
"""Alpha from which a pixel shows the asset."""


def brightness(rgb: Tensor, alpha: Tensor, share: float) -> Tensor:
    """Brightness [V] of the asset in each of V views rgb [V, 3, H, W] with alpha [V, 1, H, W].

    It is the `share`-quantile over a view's positive pixels, a pixel being the mean of its channels; 0 without
    any. The released code leaves out what is black, which on black is the background. Here the background is
    left out whatever its colour, or white alone would pass for too bright.
    """
    pixels, covered = rgb.detach().mean(dim=1).flatten(1), alpha.detach().flatten(1) > COVERED
    lit = covered & (pixels > 0)
    # View by view, for torch's quantiles are of at most 16 million numbers.
    of_lit = [torch.nanquantile(view, share) for view in torch.where(lit, pixels, math.nan)]
    return torch.where(lit.any(dim=1), torch.stack(of_lit), 0.0)


def equalizes(params: OptimizationParams, step: int) -> bool:
    """Return whether `equalize_brightness` is due after iteration `step`."""
    return not params.keeps_color and params.start_reset_iter < step < params.end_reset_iter


@torch.no_grad()
def equalize_brightness(optimizer: GaussianOptimizer, of_views: Tensor, params: OptimizationParams) -> Tensor:
    """Dim all colours if an iteration is too bright; return whether, a bool [] on the device, without waiting for it.

    It is too bright if the `thresh`-quantile of `of_views` [V], the brightness of its views, is above
    `lgt_thresh`. Colour coefficients are multiplied by `reset_rate`, and Adam forgets their moments, which
    would bring the brightness back.
    """
    too_bright = torch.quantile(of_views, params.thresh) > params.lgt_thresh
    for name in COLOR:
        optimizer.dim(name, params.reset_rate, too_bright)
    return too_bright


def lift_colors(optimizer: GaussianOptimizer, min_color: float) -> None:
    """Raise every base colour, that of degree 0 alone, to at least `min_color`, in place.

    The rasterizer shows channels below 0 as 0 and passes them no gradient. Without harmonics above degree 0
    such a channel would stay as it is for ever. A quarter of the Gaussians of a red toy have a blue one.
    """
    optimizer.clamp("f_dc", min=rgb_to_dc(min_color))
