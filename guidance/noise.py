"""The noise eps* of a method: one for the whole run, or fresh for each view and iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from config.schema import GuidanceParams
from utils.rng import normal

RELEASED_OFFSET = 0.1
"""Offset of the noise in the released codes of LucidDreamer, GCS and SCTD."""


class Noise:
    """The noise eps*: one for all views and iterations (SegmentDreamer Sec. 4.2, Consistent3D), or fresh ones.

    Args:
        fixed: draw it once, from `seed`.
        offset: standard deviation of a constant that is added to each channel. It is drawn after the noise, from
            the same generator.
    """

    def __init__(self, *, fixed: bool, seed: int, offset: float = 0.0) -> None:
        self.fixed, self.seed, self.offset = fixed, seed, offset
        self._kept: Tensor | None = None

    @classmethod
    def of(cls, params: GuidanceParams, *, fixed: bool, offset: float = 0.0) -> Noise:
        """Make the noise of `fix_noise` and `noise_offset`; `fixed` and `offset` are the method's where they are null."""
        return cls(
            fixed=fixed if params.fix_noise is None else params.fix_noise,
            seed=params.noise_seed,
            offset=offset if params.noise_offset is None else params.noise_offset,
        )

    def __call__(self, z0: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
        """Return noise that broadcasts against z0 [V, ..., C, h, w]; fresh noise comes from each row's own of V
        generators."""
        if not self.fixed:
            return self._draw(z0, rngs)
        if self._kept is None:
            self._kept = self._draw(z0, [torch.Generator().manual_seed(self.seed)])
        return self._kept

    def _draw(self, z0: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
        noise = normal(z0.shape[1:], rngs)
        if self.offset:
            # The last two dimensions are the image's; what is before them are the channels, of each view of a set.
            channels = max(z0.dim() - 3, 1)
            constant = (*z0.shape[1 : 1 + channels], *[1] * (z0.dim() - 1 - channels))
            noise = noise + self.offset * normal(constant, rngs)
        return noise.to(z0, non_blocking=True)
