"""Gaussians as `render` takes them, apart from the model that they come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gaussian_renderer import Gaussians


@dataclass(frozen=True)
class Activated:
    """Gaussians activated once for many pictures, without gradients; see `Gaussians` for shapes and units."""

    sh_degree: int
    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    shs: Tensor

    @staticmethod
    @torch.no_grad()
    def of(gaussians: Gaussians, rows: Tensor | slice = slice(None)) -> Activated:
        """Activate the Gaussians that `rows` names: truth values [N], numbers or a slice; all by default."""
        return Activated(
            sh_degree=gaussians.sh_degree,
            means=gaussians.means[rows].detach(),
            scales=gaussians.scales[rows].detach(),
            rotations=gaussians.rotations[rows].detach(),
            opacities=gaussians.opacities[rows].detach(),
            shs=gaussians.shs[rows].detach(),
        )
