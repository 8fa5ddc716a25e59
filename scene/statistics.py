"""Densification statistics: how each Gaussian was seen since the last refinement."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class DensificationStats:
    """Statistics of N Gaussians over the views since the last refinement.

    Attributes:
        gradient_sum: [N], sum over views of the norm of the loss's gradient with respect to the projected mean, in
            normalised device coordinates.
        views: [N], number of views that saw it.
        max_radii: [N], largest radius in pixels.
    """

    gradient_sum: Tensor
    views: Tensor
    max_radii: Tensor

    @staticmethod
    def zeros(count: int, device: torch.device | str | None = None) -> DensificationStats:
        return DensificationStats(*(torch.zeros(count, device=device) for _ in range(3)))

    @staticmethod
    @torch.no_grad()
    def of_views(means2d_grad: Tensor, radii: Tensor, width: int, height: int) -> DensificationStats:
        """Statistics of V views, from gradients [V, N, 2] with respect to the means and radii [V, N], both in pixels.

        A pixel is 2/W by 2/H in normalised device coordinates, so gradients scale by (W/2, H/2).
        """
        seen = radii > 0
        norms = torch.hypot(means2d_grad[..., 0] * (width / 2.0), means2d_grad[..., 1] * (height / 2.0))
        return DensificationStats(
            gradient_sum=norms.masked_fill_(~seen, 0.0).sum(dim=0),
            views=seen.sum(dim=0, dtype=norms.dtype),
            max_radii=radii.amax(dim=0).to(norms.dtype),
        )

    def add(self, other: DensificationStats) -> None:
        """Add what other views saw."""
        self.gradient_sum += other.gradient_sum
        self.views += other.views
        self.max_radii = torch.maximum(self.max_radii, other.max_radii)

    def if_true(self, condition: Tensor) -> DensificationStats:
        """Return the same, or zeros if `condition`, a bool [] on the device, is false; nothing waits for it."""
        refused = ~condition
        kept = (getattr(self, field.name).masked_fill(refused, 0.0) for field in fields(self))
        return DensificationStats(*kept)

    def mean_gradient(self) -> Tensor:
        """Mean [N] over the views that saw the Gaussian; 0 where none did."""
        return self.gradient_sum / self.views.clamp_min(1.0)

    def keep(self, mask: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])

    def append(self, count: int) -> None:
        """Add `count` Gaussians that no view has seen."""
        for field in fields(self):
            old = getattr(self, field.name)
            setattr(self, field.name, torch.cat([old, old.new_zeros(count)]))

    def clear(self, rows: Tensor | None = None) -> None:
        """Forget everything, or all about `rows`."""
        for field in fields(self):
            getattr(self, field.name)[slice(None) if rows is None else rows] = 0.0
