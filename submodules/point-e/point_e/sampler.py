"""Sampling a stage: Heun's method with churn on the schedule of Karras et al. (2022), guided and clipped.

Noise levels σ are those of Karras et al.: x = x_0 + σ n. The models were trained on x_t = √ᾱ x_0 + √(1 - ᾱ) ε; they are
one and the same where x_t = x / √(1 + σ²).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from point_e.models import StageConfig
from point_e.schedule import alphas_cumprod, timestep_of
from point_e.transformer import CHANNELS, PointTransformer

Clip = Literal["static", "dynamic", "none"]
Denoise = Callable[[Tensor, float], Tensor]
QUANTILE = 0.995
"""Share of the values that dynamic clipping leaves alone."""


@dataclass(frozen=True)
class Condition:
    """Condition of B clouds: CLIP vectors [B, D] or grids [B, L, D], and coarser clouds [B, M, 6]."""

    clip: Tensor | None = None
    coarse: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class Denoiser:
    """Estimator of x_0 [B, N, 6] of noisy points, by a model and its schedule, with classifier-free guidance
    and clipping.

    scale: x_0 = x_0(nothing) + scale · (x_0(condition) - x_0(nothing)); nothing is a condition of zeros. At 1 and 0
    only one of the two is evaluated. clip: "static", as published, brings either prediction into [-1, 1]; "dynamic"
    (Saharia et al., 2022, Sec. 2.3) brings a cloud's guided prediction there by its own size; "none" leaves it.
    """

    model: PointTransformer
    stage: StageConfig
    condition: Condition
    scale: float
    clip: Clip = "static"

    def __post_init__(self) -> None:
        self.abar = alphas_cumprod(self.stage.schedule, self.stage.timesteps)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        told = self.condition.tensors()
        nothing = {name: torch.zeros_like(value) for name, value in told.items()}
        if self.scale == 1 or not told:
            guided = self.predict(x, sigma, told)
        elif self.scale == 0:
            guided = self.predict(x, sigma, nothing)
        else:
            both = {name: torch.cat([value, nothing[name]]) for name, value in told.items()}
            with_it, without = self.predict(torch.cat([x, x]), sigma, both).chunk(2)
            guided = without + self.scale * (with_it - without)
        return dynamic_clip(guided) if self.clip == "dynamic" else guided

    def predict(self, x: Tensor, sigma: float, told: dict[str, Tensor]) -> Tensor:
        """Estimate of x_0 = (x_t - √(1 - ᾱ_t) ε) / √ᾱ_t at the timestep t of σ."""
        t = timestep_of(sigma, self.abar)
        abar = float(self.abar[t])
        x_t = x / math.sqrt(1 + sigma**2)
        eps = self.model(x_t, torch.full((len(x),), t, device=x.device), **told)
        x_0 = (x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        return x_0.clamp(-1, 1) if self.clip == "static" else x_0


def dynamic_clip(x_0: Tensor) -> Tensor:
    """Clip each cloud [N, 6] of the batch into [-1, 1]: clamped to s and divided by it, s ≥ 1 a quantile of
    its |x_0|.
    """
    s = x_0.flatten(1).abs().quantile(QUANTILE, dim=1).clamp_min(1.0)[:, None, None]
    return torch.minimum(torch.maximum(x_0, -s), s) / s


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> list[float]:
    """Noise levels, `steps` of them from sigma_max to sigma_min, then 0 (Karras et al., 2022, Eq. 5)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: list[float],
    s_churn: float,
    noise: Callable[[], Tensor],
    on_step: Callable[[], object],
) -> Tensor:
    """Solve for x at σ = 0 (Karras et al., 2022, Algorithm 2, S_noise = 1 and no bounds on S_churn).

    denoise: (x, σ) → x_0. x: at noise level sigmas[0]. sigmas: falling to 0. noise: fresh normal noise of x's shape.
    """
    gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for sigma, sigma_next in pairwise(sigmas):
        sigma_hat = sigma * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(sigma_hat**2 - sigma**2) * noise()
        d = (x - denoise(x, sigma_hat)) / sigma_hat
        euler = x + (sigma_next - sigma_hat) * d
        if sigma_next > 0:
            d_next = (euler - denoise(euler, sigma_next)) / sigma_next
            x = x + (sigma_next - sigma_hat) * (d + d_next) / 2
        else:
            x = euler
        on_step()
    return x


@torch.no_grad()
def sample(
    model: PointTransformer,
    stage: StageConfig,
    condition: Condition,
    batch: int,
    rng: torch.Generator,
    *,
    steps: int | None = None,
    scale: float | None = None,
    clip: Clip = "static",
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Sample `batch` clouds of model.config.n_ctx points [B, N, 6]: positions, and colours from 0 to 255.

    An upsampler's clouds begin with the coarser points of its condition. All noise is drawn on the
    generator's device, so that a seed means the same everywhere. steps, and scale of the guidance: the
    stage's own by default. on_step: called after each.
    """
    parameter = next(model.parameters())
    shape = (batch, model.config.n_ctx, CHANNELS)

    def noise() -> Tensor:
        return torch.randn(shape, generator=rng, device=rng.device).to(parameter)

    sigmas = karras_sigmas(stage.steps if steps is None else steps, stage.sigma_min, stage.sigma_max)
    denoise = Denoiser(model, stage, condition, stage.guidance_scale if scale is None else scale, clip)
    x = heun(denoise, sigmas[0] * noise(), sigmas, stage.s_churn, noise, on_step)
    biases, scales = (x.new_tensor(v) for v in (stage.channel_biases, stage.channel_scales))
    points = (x - biases) / scales
    return points if condition.coarse is None else torch.cat([condition.coarse, points], dim=1)
