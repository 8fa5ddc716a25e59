"""Regularisers of renders and Gaussians: small differentiable functions, each a scalar."""

from __future__ import annotations

from torch import Tensor


def tv(images: Tensor) -> Tensor:
    """Twice the mean squared vertical step plus twice the horizontal one, of images [V, C, H, W]."""
    vertical = (images[:, :, 1:, :] - images[:, :, :-1, :]).square()
    horizontal = (images[:, :, :, 1:] - images[:, :, :, :-1]).square()
    return 2.0 * (vertical.mean() + horizontal.mean())


def mean_scale(scales: Tensor) -> Tensor:
    """Mean of scales [N, 3], world units."""
    return scales.mean()


def mean_alpha(alpha: Tensor) -> Tensor:
    """Mean coverage of alpha [V, 1, H, W], in [0, 1]: falls as the asset shrinks."""
    return alpha.mean()


def binary_alpha(alpha: Tensor) -> Tensor:
    """Mean of 4 α (1 - α), in [0, 1]: 0 where every pixel is either covered or clear."""
    return (4.0 * alpha * (1.0 - alpha)).mean()
