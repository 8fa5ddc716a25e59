"""Loss of a network that predicts noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler
from torch import Tensor

SNR_LIMIT = 5.0


def denoising_loss(
    answer: Callable[[Tensor, Tensor], Tensor], z0: Tensor, scheduler: DDIMScheduler, rng: torch.Generator
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Return the mean square error of answer(z_t, t) = eps, with min-SNR weights, and that of late times.

    z0: latents [B, ...]. Timesteps t [B] are stratified.
    """
    abar, count = scheduler.alphas_cumprod, len(z0)
    snr = abar / (1 - abar)
    strata = (torch.arange(count) + torch.rand(count, generator=rng)) / count
    t = (strata * len(abar)).long()
    noise = torch.randn(z0.shape, generator=rng)
    eps = answer(scheduler.add_noise(z0, noise, t), t)
    weight = snr[t].clamp(max=SNR_LIMIT) / snr[t]
    error = (eps - noise).square().flatten(1).mean(dim=1)
    return (weight * error).mean(), {"late": error[t > 500].mean().detach()}
