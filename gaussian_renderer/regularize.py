"""Regularisers of renders and Gaussians: small differentiable functions, each a scalar."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

GRAIN = 0.01
"""Step between neighbouring pixels from which `tv_l1` grows evenly with the step."""


def tv(images: Tensor) -> Tensor:
    """Twice the mean squared vertical step plus twice the horizontal one, of images [V, C, H, W]."""
    vertical, horizontal = _Steps.apply(images)
    return 2.0 * (vertical.square().mean() + horizontal.square().mean())


def tv_l1(images: Tensor) -> Tensor:
    """Mean absolute vertical step plus the horizontal one, of images [V, C, H, W], rounded off below `GRAIN`.

    An edge costs as much as a slope of the same height, so grains go and edges stay (Rudin, Osher and Fatemi, 1992; the form is
    Charbonnier's, sqrt(x² + GRAIN²) - GRAIN).
    """
    return torch.stack(
        [(steps.square() + GRAIN**2).sqrt().mean() - GRAIN for steps in _Steps.apply(images)]
    ).sum()


class _Steps(torch.autograd.Function):
    """Steps to the next row and to the next column, with a backward of its own: autograd's fills an image with zeros for each
    of the four operands."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.diff(dim=2), images.diff(dim=3)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        vertical, horizontal = upstream
        found = vertical.new_zeros(*vertical.shape[:2], horizontal.shape[2], vertical.shape[3])
        for slope, dim in ((horizontal, 3), (vertical, 2)):
            found.narrow(dim, 0, slope.shape[dim]).sub_(slope)
            found.narrow(dim, 1, slope.shape[dim]).add_(slope)
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
