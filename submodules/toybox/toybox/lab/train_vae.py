"""Train the autoencoder: toys, clutter, disparity images, on grey backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from config.model_params import ModelParams
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_vae
from toybox.lab.renders import Renders

CROP, CROP_BATCH, FULL_BATCH = 64, 16, 8
KL_WEIGHT = 1e-4
CROP_STEPS, FULL_STEPS = 5000, 700


def reconstruction_loss(
    vae: AutoencoderKL, images: Tensor, rng: torch.Generator
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Mean absolute error of pixels and of their differences (which keeps edges sharp), and a little KL."""
    x = images * 2 - 1
    posterior = vae.encode(x).latent_dist
    z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)
    y = vae.decode(z).sample
    error = y - x
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    psnr = -10 * torch.log10(error.detach().square().mean() / 4)
    return error.abs().mean() + 0.5 * edges + KL_WEIGHT * kl, {"psnr": psnr, "kl": kl.detach()}


def train_vae(
    sets: list[tuple[Renders, float]], model_params: ModelParams, folder: Path, seed: int
) -> AutoencoderKL:
    """Train the autoencoder: crops of 64² first, four times as fast, then whole views.

    sets: renders and the share of a batch that each gives.
    """
    torch.manual_seed(seed)
    vae = build_vae().to(memory_format=torch.channels_last)
    shares = np.array([share for _, share in sets])

    def batch(count: int, rng: torch.Generator) -> Tensor:
        parts = []
        for (renders, _), n in zip(
            sets, np.diff(np.round(count * np.cumsum([0, *shares]) / shares.sum()).astype(int))
        ):
            parts.append(renders.draw(n, model_params, rng)[1])
        return torch.cat(parts)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        if step >= CROP_STEPS:
            return reconstruction_loss(vae, batch(FULL_BATCH, rng), rng)
        images = batch(CROP_BATCH, rng)
        # Crops around the middle, where the toy is.
        top, left = (int(torch.randint(8, images.shape[-1] - CROP - 7, (), generator=rng)) for _ in range(2))
        return reconstruction_loss(vae, images[..., top : top + CROP, left : left + CROP], rng)

    fit("vae", vae, loss, Schedule(CROP_STEPS + FULL_STEPS, lr=2e-3, weight_decay=0.0), folder, seed)
    with torch.no_grad():  # 1 / the latents' standard deviation, as Stable Diffusion defines it
        _, images = sets[0][0].draw(512, model_params, torch.Generator().manual_seed(seed))
        latents = torch.cat([vae.encode(part * 2 - 1).latent_dist.mean for part in images.split(64)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return vae
