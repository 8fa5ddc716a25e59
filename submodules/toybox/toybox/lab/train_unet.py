"""Train the denoiser, on cached latents, conditioned as the training loop conditions it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from toybox.lab.denoising import denoising_loss
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_scheduler, build_unet
from toybox.lab.training_views import TrainingViews

STEPS, BATCH = 8000, 48


def train_unet(views: TrainingViews, folder: Path, seed: int) -> UNet2DConditionModel:
    """Train the U-Net: epsilon prediction with min-SNR weights and stratified timesteps."""
    torch.manual_seed(seed)
    unet: UNet2DConditionModel = build_unet().to(memory_format=torch.channels_last)
    scheduler = build_scheduler()

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(views), (BATCH,), generator=rng)

        def answer(z: Tensor, t: Tensor) -> Tensor:
            z = z.contiguous(memory_format=torch.channels_last)
            predicted: Tensor = unet(z, t, views.conditions(index, rng)[0]).sample
            return predicted

        return denoising_loss(answer, views.latents[index], scheduler, rng)

    fit("unet", unet, loss, Schedule(STEPS, lr=8e-4), folder, seed)
    return unet
