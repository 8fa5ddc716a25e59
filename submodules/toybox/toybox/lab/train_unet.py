"""Train the denoiser, on cached latents, conditioned as the training loop conditions it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from config import Config
from config.model_params import ModelParams
from guidance.prompts import VIEW_WORDS, view_weights
from toybox.captions import NAMES, random_caption
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_scheduler, build_unet
from toybox.lab.renders import Renders, backgrounds
from toybox.lab.train_text import tokens
from utils.files import atomic_path

STEPS, BATCH = 8000, 48
PHRASINGS = 4
"""Captions of a toy that are encoded, once, before training."""
EMPTY_SHARE = 0.15
SNR_LIMIT = 5.0


@torch.no_grad()
def cached_latents(
    vae: AutoencoderKL,
    sets: list[Renders],
    model_params: ModelParams,
    cache: Path,
    seed: int,
    views_per_set: int = 1,
) -> Tensor:
    """Scaled latents [M, 4, H/8, W/8] of all views, each set of them over one random background; from `cache` if they are
    there."""
    if cache.exists():
        return torch.load(cache, weights_only=True)
    rng = torch.Generator().manual_seed(seed)
    latents = []
    for renders in sets:
        for start in tqdm(range(0, len(renders), 16), desc="latents", unit_scale=16, unit="view"):
            index = np.arange(start, min(start + 16, len(renders)))
            behind = backgrounds(model_params, len(index) // views_per_set, rng)
            images = renders.images(index, behind.repeat_interleave(views_per_set, dim=0))
            latents.append(vae.encode(images * 2 - 1).latent_dist.mean * vae.config.scaling_factor)
    with atomic_path(cache) as temporary:
        torch.save(torch.cat(latents), temporary)
    return torch.cat(latents)


@torch.no_grad()
def phrasings(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, used: np.ndarray, seed: int) -> Tensor:
    """Embeddings [len(NAMES), PHRASINGS, views, L, D] of captions of the names `used` (the other rows are 0),
    with each view's words.
    """
    words = random.Random(seed)
    length, width = tokenizer.model_max_length, text_encoder.config.hidden_size
    rows = torch.zeros(len(NAMES), PHRASINGS, len(VIEW_WORDS), length, width)
    for index in used.tolist():
        captions = [random_caption(NAMES[index], words) for _ in range(PHRASINGS)]
        ids = tokens(tokenizer, [caption + view for caption in captions for view in VIEW_WORDS])
        rows[index] = text_encoder(ids).last_hidden_state.unflatten(0, (PHRASINGS, len(VIEW_WORDS)))
    return rows


def train_unet(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    sets: list[Renders],
    config: Config,
    folder: Path,
    seed: int,
) -> UNet2DConditionModel:
    """Train the U-Net: epsilon prediction with min-SNR weights and stratified timesteps.

    Conditions are interpolated by azimuth as `guidance.prompts` does: the prior then knows every azimuth, and
    not only three.
    """
    torch.manual_seed(seed)
    unet: UNet2DConditionModel = build_unet().to(memory_format=torch.channels_last)
    latents = cached_latents(vae, sets, config.model, folder / "latents.pt", seed)
    name, azimuth, polar = (
        torch.from_numpy(np.concatenate([getattr(renders, part) for renders in sets]))
        for part in ("name", "azimuth", "polar")
    )
    weights = view_weights(azimuth, polar, config.camera.angle_overhead)
    told = phrasings(text_encoder, tokenizer, name.unique().numpy(), seed)
    with torch.no_grad():
        untold = text_encoder(tokens(tokenizer, [""])).last_hidden_state
    scheduler = build_scheduler()
    abar = scheduler.alphas_cumprod
    snr = abar / (1 - abar)

    def condition(index: Tensor, rng: torch.Generator) -> Tensor:
        phrasing = torch.randint(PHRASINGS, (len(index),), generator=rng)
        by_view = told[name[index].long(), phrasing]
        empty = torch.rand(len(index), 1, 1, generator=rng) < EMPTY_SHARE
        return torch.where(empty, untold, torch.einsum("bk,bkld->bld", weights[index], by_view))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(latents), (BATCH,), generator=rng)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH
        t = (strata * len(abar)).long()
        z0, noise = latents[index], torch.randn(BATCH, *latents.shape[1:], generator=rng)
        z_t = scheduler.add_noise(z0, noise, t).contiguous(memory_format=torch.channels_last)
        eps = unet(z_t, t, condition(index, rng)).sample
        weight = snr[t].clamp(max=SNR_LIMIT) / snr[t]
        error = (eps - noise).square().mean(dim=(1, 2, 3))
        return (weight * error).mean(), {"late": error[t > 500].mean().detach()}

    fit("unet", unet, loss, Schedule(STEPS, lr=8e-4), folder, seed)
    return unet
