"""Train the ControlNet of depth, beside the shipped U-Net, which stays as it is."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from toybox.lab.denoising import denoising_loss
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_controlnet, build_scheduler
from toybox.lab.renders import Renders
from toybox.lab.training_views import TrainingViews

STEPS, BATCH = 2000, 32


def train_controlnet(
    unet: UNet2DConditionModel,
    views: TrainingViews,
    guides: Renders,
    folder: Path,
    seed: int,
    steps: int = STEPS,
) -> ControlNetModel:
    """Train a ControlNet, whose encoder begins as the U-Net's, on the first views, of which `guides` are pictures."""
    torch.manual_seed(seed)
    net: ControlNetModel = build_controlnet().to(memory_format=torch.channels_last)
    begins = {name: values for name, values in unet.state_dict().items() if name in net.state_dict()}
    net.load_state_dict({**net.state_dict(), **begins})
    unet = unet.to(memory_format=torch.channels_last).requires_grad_(False)
    scheduler = build_scheduler()

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(guides), (BATCH,), generator=rng)
        picture = guides.images(index.numpy(), torch.zeros(BATCH, 3))

        def answer(z: Tensor, t: Tensor) -> Tensor:
            z, text = z.contiguous(memory_format=torch.channels_last), views.conditions(index, rng)[0]
            down, middle = net(z, t, text, picture, return_dict=False)
            predicted: Tensor = unet(
                z, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
            ).sample
            return predicted

        return denoising_loss(answer, views.latents[index], scheduler, rng)

    fit("controlnet-depth", net, loss, Schedule(steps, lr=8e-4, warmup=100), folder, seed)
    return net
