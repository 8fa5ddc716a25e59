"""What a denoiser is trained on: cached latents of views, and what their prompts mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from config import Config
from config.model_params import ModelParams
from guidance.prompts import VIEW_WORDS, view_weights
from toybox.captions import NAMES, random_caption
from toybox.lab.renders import Renders, backgrounds
from toybox.world import Name
from utils.files import atomic_path

PHRASINGS = 4
"""Captions of a toy that are encoded, once, before training."""
EMPTY_SHARE = 0.15

Embed = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Embeddings [B, L, D] of texts, and the numbers of their tokens [B]."""


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


@dataclass(frozen=True)
class TrainingViews:
    """Views with their prompts.

    Conditions are interpolated by azimuth as `guidance.prompts` does: a prior then knows every azimuth, and not only
    three.

    latents [M, 4, h, w]; name [M]: index into NAMES; weights [M, views]: of each view's words; told
    [NAMES, PHRASINGS, views, L, D]: embeddings of captions, 0 for names that no view shows; lengths [NAMES, PHRASINGS]:
    tokens of them; untold [1, L, D]: the empty prompt, of `untold_length` tokens.
    """

    latents: Tensor
    name: Tensor
    weights: Tensor
    told: Tensor
    lengths: Tensor
    untold: Tensor
    untold_length: int

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        vae: AutoencoderKL,
        embed: Embed,
        sets: list[Renders],
        config: Config,
        folder: Path,
        seed: int,
        phrase: Callable[[Name, random.Random], str] = random_caption,
    ) -> TrainingViews:
        """Encode the views, or read their latents from `folder`, and embed captions of theirs.

        phrase: makes a caption of a toy.
        """
        latents = cached_latents(vae, sets, config.model, folder / "latents.pt", seed)
        name, azimuth, polar = (
            torch.from_numpy(np.concatenate([getattr(renders, part) for renders in sets]))
            for part in ("name", "azimuth", "polar")
        )
        weights = view_weights(azimuth, polar, config.camera.angle_overhead)
        (untold, ends), words = embed([""]), random.Random(seed)
        told = torch.zeros(len(NAMES), PHRASINGS, len(VIEW_WORDS), *untold.shape[1:])
        lengths = torch.zeros(len(NAMES), PHRASINGS, dtype=torch.int64)
        for index in name.unique().tolist():
            captions = [phrase(NAMES[index], words) for _ in range(PHRASINGS)]
            embedded, counts = embed([caption + view for caption in captions for view in VIEW_WORDS])
            told[index] = embedded.unflatten(0, (PHRASINGS, len(VIEW_WORDS)))
            lengths[index] = counts.unflatten(0, (PHRASINGS, len(VIEW_WORDS))).amax(1)
        return cls(latents, name.long(), weights, told, lengths, untold, int(ends))

    def __len__(self) -> int:
        return len(self.latents)

    def conditions(self, index: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw conditions [B, L, D] of views `index` and their lengths [B]; EMPTY_SHARE of them are the empty prompt's."""
        phrasing = torch.randint(PHRASINGS, (len(index),), generator=rng)
        names = self.name[index]
        mixed = torch.einsum("bk,bkld->bld", self.weights[index], self.told[names, phrasing])
        empty = torch.rand(len(index), 1, 1, generator=rng) < EMPTY_SHARE
        lengths = torch.where(empty[:, 0, 0], self.untold_length, self.lengths[names, phrasing])
        return torch.where(empty, self.untold, mixed), lengths
