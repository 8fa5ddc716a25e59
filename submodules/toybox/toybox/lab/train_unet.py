"""Train the denoiser, on cached latents, conditioned as the training loop conditions it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_scheduler, build_unet
from toybox.lab.training_views import TrainingViews

STEPS, BATCH = 8000, 48
SNR_LIMIT = 5.0


def train_unet(views: TrainingViews, folder: Path, seed: int) -> UNet2DConditionModel:
    """Train the U-Net: epsilon prediction with min-SNR weights and stratified timesteps."""
    torch.manual_seed(seed)
    unet: UNet2DConditionModel = build_unet().to(memory_format=torch.channels_last)
    scheduler = build_scheduler()
    abar = scheduler.alphas_cumprod
    snr = abar / (1 - abar)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(views), (BATCH,), generator=rng)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH
        t = (strata * len(abar)).long()
        z0 = views.latents[index]
        noise = torch.randn(z0.shape, generator=rng)
        z_t = scheduler.add_noise(z0, noise, t).contiguous(memory_format=torch.channels_last)
        eps = unet(z_t, t, views.conditions(index, rng)[0]).sample
        weight = snr[t].clamp(max=SNR_LIMIT) / snr[t]
        error = (eps - noise).square().mean(dim=(1, 2, 3))
        return (weight * error).mean(), {"late": error[t > 500].mean().detach()}

    fit("unet", unet, loss, Schedule(STEPS, lr=8e-4), folder, seed)
    return unet
