"""Regularisers of renders and Gaussians: small differentiable functions, each a scalar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tv(images: Tensor) -> Tensor:
    """Twice the mean squared vertical step plus twice the horizontal one, of images [V, C, H, W]."""
    total: Tensor = _TotalVariation.apply(images)
    return total


class _TotalVariation(torch.autograd.Function):
    """Total variation with a backward of its own: autograd's fills an image with zeros for each of the four
    operands."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        vertical, horizontal = images.diff(dim=2), images.diff(dim=3)
        ctx.save_for_backward(vertical, horizontal)
        return 2.0 * (vertical.square().mean() + horizontal.square().mean())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        vertical, horizontal = ctx.saved_tensors
        found = vertical.new_zeros(*vertical.shape[:2], horizontal.shape[2], vertical.shape[3])
        for steps, dim in ((horizontal, 3), (vertical, 2)):
            slope = steps * (4.0 * upstream[0] / steps.numel())
            found.narrow(dim, 0, steps.shape[dim]).sub_(slope)
            found.narrow(dim, 1, steps.shape[dim]).add_(slope)
        return found


def mean_scale(scales: Tensor) -> Tensor:
    """Mean of scales [N, 3], world units."""
    return scales.mean()


def mean_alpha(alpha: Tensor) -> Tensor:
    """Mean coverage of alpha [V, 1, H, W], in [0, 1]: falls as the asset shrinks."""
    return alpha.mean()


def binary_alpha(alpha: Tensor) -> Tensor:
    """Mean of 4 α (1 - α), in [0, 1]: 0 where every pixel is either covered or clear."""
    return (4.0 * alpha * (1.0 - alpha)).mean()
