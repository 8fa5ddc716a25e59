"""Seeded augmentation of training renders, and the disparity image that geometry guidance looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from config.schema import ModelParams
from gaussian_renderer import Gaussians, RenderOutput
from scene.cameras import Cameras
from utils.rng import normal_like, uniform

SHS_NOISE = math.sqrt(0.2)
"""Relative standard deviation of the noise on harmonics (0.447)."""
SCALE_NOISE = math.sqrt(0.2) / 4.0
"""Relative standard deviation of the noise on scales (0.112)."""
FAR = 10.0
"""Depth that transparent pixels count as, in world units."""


def sample_background(
    model_params: ModelParams, rngs: Sequence[torch.Generator], device: torch.device | str | None = None
) -> Tensor:
    """Draw backgrounds [V, 3] in [0, 1], for each view from its own of V generators.

    With probability `bg_aug_ratio`: one random colour (grey with `bg_gray`) half of the time, else black;
    otherwise white if `white_background`, else black.
    """
    augmented, colored = uniform(rngs)[:, None], uniform(rngs)[:, None]
    colors = torch.stack([uniform(rngs) for _ in range(1 if model_params.bg_gray else 3)], dim=1).float()
    colors = colors.expand(-1, 3)
    plain = torch.full((len(rngs), 3), 1.0 if model_params.white_background else 0.0)
    drawn = torch.where(colored < 0.5, colors, torch.zeros_like(colors))
    return torch.where(augmented < model_params.bg_aug_ratio, drawn, plain).to(device, non_blocking=True)


@dataclass(frozen=True)
class Perturbation:
    """Keyword arguments of `render` for one step: the degree in use, scales [N, 3] and shs [N, K, 3]."""

    sh_degree: int
    scales: Tensor
    shs: Tensor


def perturb(
    gaussians: Gaussians, model_params: ModelParams, rng: torch.Generator, *, sh_degree: int | None = None
) -> Perturbation:
    """Draw scales and colours perturbed at random, through which gradients reach the model.

    With p `sh_deg_aug_ratio` the degree is 0, else `sh_degree` (default: the model's). With p `scale_aug_ratio`
    each scale is multiplied by max(0, 1 + 0.112 ξ), with p `shs_aug_ratio` each coefficient by 1 + 0.447 ξ,
    ξ ~ N(0, 1).
    """
    flat, noisy_scales, noisy_shs = torch.rand(3, generator=rng).tolist()
    degree = gaussians.sh_degree if sh_degree is None else sh_degree
    scales, shs = gaussians.scales, gaussians.shs
    if noisy_scales < model_params.scale_aug_ratio:
        scales = scales * (1.0 + SCALE_NOISE * normal_like(scales, rng)).clamp_min(0.0)
    if noisy_shs < model_params.shs_aug_ratio:
        shs = shs * (1.0 + SHS_NOISE * normal_like(shs, rng))
    return Perturbation(0 if flat < model_params.sh_deg_aug_ratio else degree, scales, shs)


def disparity(render: RenderOutput, cameras: Cameras) -> Tensor:
    """Disparity images [V, 1, H, W] in [0, 1]: each view's farthest covered pixel is 0, its nearest 1.

    d = focal / (depth + 10 T + 1e-5), with depth = Σ T α z, the final transmittance T and the focal length
    in image widths; normalised from the least d among pixels with T ≤ 0.1 (among all, where there is none)
    to the largest. An empty view is 0 everywhere.
    """
    transmittance = 1.0 - render.alpha
    focal = (cameras.focals[:, 0] / cameras.width)[:, None, None, None]
    d = focal / (render.depth + FAR * transmittance + 1e-5)
    low = d.masked_fill(transmittance > 0.1, math.inf).amin(dim=(1, 2, 3), keepdim=True)
    low = torch.where(low < math.inf, low, d.amin(dim=(1, 2, 3), keepdim=True))
    high = d.amax(dim=(1, 2, 3), keepdim=True)
    return ((d - low) / (high - low).clamp_min(1e-8)).clamp(0.0, 1.0)
