"""The denoiser and its text encoder, on cached latents, conditioned as the training loop conditions it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from config import Config
from config.model_params import ModelParams
from gaussian_renderer.augment import sample_background
from guidance.prompts import VIEW_WORDS, view_weights
from toybox.captions import PAIRS, random_caption
from toybox.fit import Schedule, fit
from toybox.models import build_scheduler, build_text_encoder, build_unet
from toybox.renders import Renders

STEPS, BATCH = 5000, 48
EMPTY_SHARE = 0.15
SNR_LIMIT = 5.0


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKL, renders: Renders, model_params: ModelParams, rng: torch.Generator
) -> Tensor:
    """Scaled latents [M, 4, H/8, W/8] of all views, each over one random background."""
    latents = []
    for start in tqdm(range(0, len(renders), 16), desc="latents", unit_scale=16, unit="view"):
        index = np.arange(start, min(start + 16, len(renders)))
        images = renders.images(index, sample_background(model_params, len(index), rng))
        latents.append(vae.encode(images * 2 - 1).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(latents)


class TextToImage(nn.Module):
    """What is trained together, so that one optimizer and one average hold both."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer)
        self.unet: UNet2DConditionModel = build_unet().to(memory_format=torch.channels_last)

    def tokens(self, prompts: list[str]) -> Tensor:
        return self.tokenizer(
            prompts, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids  # fmt: skip

    def embed(self, prompts: list[str]) -> Tensor:
        """[P, L, D] of P texts, each distinct one encoded once."""
        distinct = list(dict.fromkeys(prompts))
        where = {prompt: index for index, prompt in enumerate(distinct)}
        embeddings = self.text_encoder(self.tokens(distinct)).last_hidden_state
        return embeddings[torch.tensor([where[prompt] for prompt in prompts])]


def train_unet(
    vae: AutoencoderKL, renders: Renders, config: Config, tokenizer: CLIPTokenizer, folder: Path, seed: int
) -> TextToImage:
    """Epsilon prediction with min-SNR weights, stratified timesteps, and conditions interpolated by azimuth
    as `guidance.prompts` does: the prior then knows every azimuth, and not only three."""
    torch.manual_seed(seed)
    model = TextToImage(tokenizer)
    latents = cache_latents(vae, renders, config.model, torch.Generator().manual_seed(seed))
    weights = view_weights(
        torch.from_numpy(renders.azimuth), torch.from_numpy(renders.polar), config.camera.angle_overhead
    )
    scheduler = build_scheduler()
    abar = scheduler.alphas_cumprod
    snr = abar / (1 - abar)

    def condition(index: Tensor, rng: torch.Generator) -> Tensor:
        words = random.Random(int(torch.randint(2**31, (), generator=rng)))
        empty = torch.rand(len(index), generator=rng) < EMPTY_SHARE
        texts: list[str] = []
        for i, drop in zip(renders.pair[index.numpy()], empty.tolist()):
            kind, color = PAIRS[i]
            caption = random_caption(kind, color, words)
            texts += [""] * len(VIEW_WORDS) if drop else [caption + view for view in VIEW_WORDS]
        by_view = model.embed(texts).unflatten(0, (len(index), len(VIEW_WORDS)))
        return torch.einsum("bk,bkld->bld", weights[index], by_view)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(latents), (BATCH,), generator=rng)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH
        t = (strata * len(abar)).long()
        z0, noise = latents[index], torch.randn(BATCH, *latents.shape[1:], generator=rng)
        z_t = scheduler.add_noise(z0, noise, t).contiguous(memory_format=torch.channels_last)
        eps = model.unet(z_t, t, condition(index, rng)).sample
        weight = snr[t].clamp(max=SNR_LIMIT) / snr[t]
        error = (eps - noise).square().mean(dim=(1, 2, 3))
        return (weight * error).mean(), {"late": error[t > 500].mean().detach()}

    fit("unet", model, loss, Schedule(STEPS, lr=8e-4), folder, seed)
    return model
