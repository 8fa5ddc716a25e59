"""What all guidances share: the contract, the weight w(t), and the way a gradient becomes a loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from config.schema import GuidanceParams
from guidance.prompts import Conditioning
from guidance.schedule import Schedule


class Prior(Protocol):
    """A diffusion model as the guidances see it. The latents' trailing shape is its own business."""

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """[T] abar_t."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents z_0 [V, ...] float32 of images [V, 3, H, W] in [0, 1]; differentiable."""

    def eps(self, z: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """Predicted noise, float32, shaped like z [B, ...], at timesteps t [B] given cond [B, L, D]."""


@dataclass(frozen=True)
class GuidanceOutput:
    """A scalar to differentiate, and what to log (tensors are detached scalars, left on their device)."""

    loss: torch.Tensor
    diagnostics: dict[str, torch.Tensor | float]


class Guidance(Protocol):
    """What the training loop calls."""

    def __call__(
        self, images: torch.Tensor, conditioning: Conditioning, step: int, rng: torch.Generator
    ) -> GuidanceOutput:
        """Guide images [V, 3, H, W] in [0, 1] at iteration `step`; `rng` is a host generator."""


def weight(name: str, t: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """w(t) [V] on the host for timesteps t [V].

    `sigma_over_alpha` is what SegmentDreamer and LucidDreamer run with, `sigma_squared` is DreamFusion's.
    """
    if name == "sigma_over_alpha":
        return schedule.sigma(t) / schedule.alpha(t)
    if name == "sigma_squared":
        return schedule.sigma(t) ** 2
    if name == "one":
        return torch.ones(len(t), dtype=torch.float64)
    raise ValueError(f"weighting must be 'sigma_over_alpha', 'one' or 'sigma_squared', got '{name}'")


def to_output(
    z0: torch.Tensor,
    gradient: torch.Tensor,
    params: GuidanceParams,
    diagnostics: Mapping[str, torch.Tensor | float],
) -> GuidanceOutput:
    """Hand a gradient with respect to z0 to autograd, scaled by `lambda_guidance`.

    Args:
        z0: [V, ...] latents, attached to the graph of the images.
        gradient: shaped like z0, as the guidance computed it.
        params: `lambda_guidance`; `normalize_grad` first scales every view to unit RMS (views have timesteps of their
            own, and the noisiest would drown the others).
        diagnostics: what the guidance wants logged; the norm of the scaled gradient is added as `grad_norm`.
    """
    gradient = gradient.detach()
    if params.normalize_grad:
        rms = gradient.square().mean(dim=tuple(range(1, gradient.dim())), keepdim=True).sqrt()
        gradient = gradient / rms.clamp_min(torch.finfo(rms.dtype).tiny)
    gradient = params.lambda_guidance * gradient
    norm = gradient.norm()
    return GuidanceOutput(surrogate_loss(z0, gradient), {**diagnostics, "grad_norm": norm})


def surrogate_loss(z0: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A scalar whose derivative with respect to z0 is exactly `gradient` and whose value is |gradient|^2 / 2.

    Derivation: L(z0) = <g, z0> - sg(<g, z0>) + |g|^2 / 2 with g held constant, so dL/dz0 = g without any
    rounding, and the first two terms cancel in the value. What is left is the value of
    |z0 - sg(z0 - g)|^2 / 2 (whose derivative is g only up to the rounding of z0 - (z0 - g)): the residual
    that the guidance wants to see vanish, so that the logged loss can be read.
    """
    inner = (gradient * z0).sum()
    return inner - inner.detach() + 0.5 * gradient.square().sum()
