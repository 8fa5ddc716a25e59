"""Brightness-Equalised Generation (GCS-BEG): colours that have grown too bright are pulled back towards grey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scene.optimizer import GaussianOptimizer

if TYPE_CHECKING:
    from config.schema import OptimizationParams


COVERED = 0.5
"""Alpha from which a pixel shows the asset."""


def brightness(rgb: Tensor, alpha: Tensor, share: float) -> Tensor:
    """How bright the asset is in views rgb [V, 3, H, W] with alpha [V, 1, H, W]: a scalar.

    The `share`-quantile over views of the `share`-quantile over each view's positive pixels, a pixel being the mean of its
    channels; a view without any counts as 0. The released code leaves out what is black, which on black is the
    background; here the background is left out whatever its colour, or white alone would pass for too bright.
    """
    pixels, covered = rgb.detach().mean(dim=1).flatten(1), alpha.detach().flatten(1) > COVERED
    of_views = [
        torch.quantile(lit, share) if len(lit := view[asset & (view > 0)]) else view.new_zeros(())
        for view, asset in zip(pixels, covered)
    ]
    return torch.quantile(torch.stack(of_views), share)


@torch.no_grad()
def equalize_brightness(
    optimizer: GaussianOptimizer, rgb: Tensor, alpha: Tensor, params: OptimizationParams, step: int
) -> bool:
    """Dim all colours if the asset is brighter than `lgt_thresh` in iteration `step`'s views, rgb [V, 3, H, W] and alpha
    [V, 1, H, W]; returns whether.

    For iterations in (start_reset_iter, end_reset_iter): colour coefficients are multiplied by `reset_rate`, and Adam
    forgets their moments, which would bring the brightness back.
    """
    if not params.start_reset_iter < step < params.end_reset_iter:
        return False
    if float(brightness(rgb, alpha, params.thresh)) <= params.lgt_thresh:
        return False
    for name in ("f_dc", "f_rest"):
        optimizer.replace(name, params.reset_rate * optimizer.model.raw()[name])
    return True
