"""Train the small encoder: the autoencoder's latents, and its gradients in pixels, at a fraction of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from tqdm import tqdm

from config.model_params import ModelParams
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_small_autoencoder
from toybox.lab.renders import Renders, backgrounds
from utils.files import atomic_path

STEPS, BATCH = 2400, 4
PULLED_WEIGHT = 0.3
"""Weight of the gradients' error, a share of them, against the latents' squared error."""
CROP = 8
"""Side of the latents that the decoder learns from."""


@dataclass(frozen=True)
class Lessons:
    """M views and the autoencoder's answers to them.

    images [M, 3, H, W] uint8; latents [M, 4, h, w], scaled; directions [M, 4, h, w], random;
    pulled [M, 3, H, W], the gradient of <direction, latents> with respect to the image in [0, 1].
    """

    images: Tensor
    latents: Tensor
    directions: Tensor
    pulled: Tensor

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Draw `count` views: images in [0, 1], latents, directions and pulled, float32."""
        index = torch.randint(len(self.images), (count,), generator=rng)
        images, *rest = (part[index].float() for part in vars(self).values())
        return images / 255, *rest


def pulled_back(latents: Tensor, images: Tensor, directions: Tensor, *, train: bool = False) -> Tensor:
    """Gradient [B, 3, H, W] of <directions, latents> [B, 4, h, w] with respect to the images they were made of."""
    return torch.autograd.grad(latents, images, directions, create_graph=train)[0]


def like_gradients(shape: Sequence[int], rng: torch.Generator) -> Tensor:
    """Random directions [B, 4, h, w] with the spectrum of a guidance's gradients: white, and more where it is smooth."""
    count, channels, height, width = shape
    coarse = torch.randn(count, channels, height // 4, width // 4, generator=rng)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    return torch.randn(*shape, generator=rng) + 0.5 * smooth


def encoded(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Scaled latents [B, 4, h, w] of images [B, 3, H, W] in [0, 1], as the prior encodes them."""
    latents: Tensor = vae.encode(2 * images - 1).latent_dist.mean * vae.config.scaling_factor
    return latents


def lessons(
    vae: AutoencoderKL, sets: list[Renders], model_params: ModelParams, cache: Path, seed: int
) -> Lessons:
    """Views over random backgrounds with what the autoencoder makes of them; from `cache` if they are there."""
    if cache.exists():
        return Lessons(**torch.load(cache, weights_only=True))
    rng = torch.Generator().manual_seed(seed)
    vae.requires_grad_(False).to(memory_format=torch.channels_last)
    parts: list[tuple[Tensor, ...]] = []
    for renders in sets:
        for start in tqdm(range(0, len(renders), 16), desc="lessons", unit_scale=16, unit="view"):
            index = np.arange(start, min(start + 16, len(renders)))
            views = renders.images(index, backgrounds(model_params, len(index), rng))
            views = (views.clamp(0, 1) * 255).round().byte()
            images = (views.float() / 255).requires_grad_()
            latents = encoded(vae, images)
            directions = like_gradients(latents.shape, rng)
            pulled = pulled_back(latents, images, directions)
            parts.append((views, latents.detach().half(), directions.half(), pulled.half()))
    found = Lessons(*(torch.cat(each) for each in zip(*parts)))
    with atomic_path(cache) as temporary:
        torch.save(vars(found), temporary)
    return found


def train_small_encoder(
    vae: AutoencoderKL, sets: list[Renders], model_params: ModelParams, folder: Path, seed: int
) -> AutoencoderTiny:
    """Train an encoder to the scaled latents of `vae` and to their gradients, and a decoder for these latents."""
    torch.manual_seed(seed)
    small: AutoencoderTiny = build_small_autoencoder().to(memory_format=torch.channels_last)
    taught = lessons(vae, sets, model_params, folder / "small-encoder-lessons.pt", seed)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        images, latents, directions, pulled = taught.draw(BATCH, rng)
        made = small.encode(2 * images.requires_grad_() - 1).latents
        error = (made - latents).square().mean()
        off = pulled_back(made, images, directions, train=True) - pulled
        # View by view: the gradients of nearly blank ones are fifty times as large.
        wrong = (off.square().mean(dim=(1, 2, 3)) / pulled.square().mean(dim=(1, 2, 3))).mean()
        top, left = (int(torch.randint(latents.shape[-1] - CROP + 1, (), generator=rng)) for _ in range(2))
        part = latents[..., top : top + CROP, left : left + CROP]
        size = images.shape[-1] // latents.shape[-1]
        seen = images.detach()[..., size * top : size * (top + CROP), size * left : size * (left + CROP)]
        drawn = F.l1_loss(small.decode(part).sample, 2 * seen - 1)
        logs = {"latents": error.detach(), "gradient": wrong.detach(), "decoder": drawn.detach()}
        return error + PULLED_WEIGHT * wrong + drawn, logs

    fit("small-encoder", small, loss, Schedule(STEPS, lr=2e-3, weight_decay=0.0), folder, seed)
    return small
