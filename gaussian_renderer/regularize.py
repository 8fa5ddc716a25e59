"""Regularisers of renders and Gaussians: small differentiable functions, each a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

GRAIN = 0.01
"""Step between neighbouring pixels from which `tv_l1` grows evenly with the step."""


def tv(images: Tensor) -> Tensor:
    """Twice the mean squared vertical step plus twice the horizontal one, of images [V, C, H, W]."""
    total: Tensor = _Variation.apply(images, lambda x: 2.0 * x.square().mean(), lambda x: 4.0 * x)
    return total


def tv_l1(images: Tensor) -> Tensor:
    """Mean absolute vertical step plus the horizontal one, of images [V, C, H, W], rounded off below `GRAIN`.

    An edge costs as much as a slope of the same height, so grains go and edges stay (Rudin, Osher and Fatemi, 1992; the form is
    Charbonnier's, sqrt(x² + GRAIN²) - GRAIN).
    """
    total: Tensor = _Variation.apply(
        images,
        lambda x: (x.square() + GRAIN**2).sqrt().mean() - GRAIN,
        lambda x: x / (x.square() + GRAIN**2).sqrt(),
    )
    return total


class _Variation(torch.autograd.Function):
    """Sum of a penalty on the steps to the next row and on those to the next column, from its mean and its slope at a step.

    The backward is its own: autograd's fills an image with zeros for each of the four operands. It takes the steps again, one
    way after the other, so that nothing but the images is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, mean: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(images)
        ctx.slope = slope
        return mean(images.diff(dim=2)) + mean(images.diff(dim=3))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        [images] = ctx.saved_tensors
        found = torch.zeros_like(images)
        for dim in (3, 2):
            slope = ctx.slope(images.diff(dim=dim))
            slope *= upstream[0] / slope.numel()
            found.narrow(dim, 0, slope.shape[dim]).sub_(slope)
            found.narrow(dim, 1, slope.shape[dim]).add_(slope)
            del slope
        return found, None, None


def mean_scale(scales: Tensor) -> Tensor:
    """Mean of scales [N, 3], world units."""
    return scales.mean()


def mean_alpha(alpha: Tensor) -> Tensor:
    """Mean coverage of alpha [V, 1, H, W], in [0, 1]: falls as the asset shrinks."""
    return alpha.mean()


def binary_alpha(alpha: Tensor) -> Tensor:
    """Mean of 4 α (1 - α), in [0, 1]: 0 where every pixel is either covered or clear."""
    return (4.0 * alpha * (1.0 - alpha)).mean()
