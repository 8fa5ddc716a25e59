"""Train the multi-view denoiser: the shipped U-Net, whose attention learns to see four views at once and to tell cameras."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from config import Config
from guidance.camera_condition import camera_matrices
from guidance.prior.multiview_unet import VIEWS, grown, predicted
from toybox.captions import NAMES, random_caption
from toybox.lab.denoising import denoising_loss
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import build_scheduler
from toybox.lab.renders import Renders
from toybox.lab.training_views import EMPTY_SHARE, PHRASINGS, Embed, cached_latents

STEPS, SETS = 4000, 12
"""Steps, and sets of views in a batch: as many views as the single-view U-Net was trained on."""
LEARNED = ("attentions", "class_embedding", "time_emb_proj")
"""Parts of the U-Net that are trained: attention, the perceptron of cameras, and what each block reads of its sum with the time.
The others stay those of single views."""


def learned(unet: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {
        name: parameter
        for name, parameter in unet.named_parameters()
        if any(part in LEARNED for part in name.split("."))
    }


@torch.no_grad()
def plain_captions(embed: Embed, untold: Tensor, used: np.ndarray, seed: int) -> Tensor:
    """Embeddings [len(NAMES), PHRASINGS, L, D] of captions of the names `used`, without view words; other rows are 0.

    untold: the empty prompt's [1, L, D].
    """
    words = random.Random(seed)
    rows = torch.zeros(len(NAMES), PHRASINGS, *untold.shape[1:])
    for index in used.tolist():
        captions = [random_caption(NAMES[index], words) for _ in range(PHRASINGS)]
        rows[index] = embed(captions)[0]
    return rows


def train_multiview_unet(
    vae: AutoencoderKL,
    embed: Embed,
    single: UNet2DConditionModel,
    rings: list[Renders],
    config: Config,
    folder: Path,
    seed: int,
    steps: int = STEPS,
) -> UNet2DConditionModel:
    """Train a U-Net of several views, from `single` on.

    Epsilon prediction with min-SNR weights and stratified timesteps, one for each set. `rings` hold views in whole sets.
    """
    torch.manual_seed(seed)
    unet: UNet2DConditionModel = grown(single).to(memory_format=torch.channels_last)
    unet.requires_grad_(False)
    for parameter in learned(unet).values():
        parameter.requires_grad_(True)
    latents = cached_latents(vae, rings, config.model, folder / "ring-latents.pt", seed, VIEWS)
    latents = latents.unflatten(0, (-1, VIEWS))
    name, azimuth, polar = (
        torch.from_numpy(np.concatenate([getattr(renders, part) for renders in rings]))
        for part in ("name", "azimuth", "polar")
    )
    kind, cameras = name[::VIEWS], camera_matrices(azimuth, polar).unflatten(0, (-1, VIEWS))
    untold = embed([""])[0]
    told = plain_captions(embed, untold, kind.unique().numpy(), seed)
    scheduler = build_scheduler()

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(latents), (SETS,), generator=rng)

        def answer(z: Tensor, t: Tensor) -> Tensor:
            phrasing = torch.randint(PHRASINGS, (SETS,), generator=rng)
            empty = torch.rand(SETS, 1, 1, generator=rng) < EMPTY_SHARE
            text = torch.where(empty, untold, told[kind[index].long(), phrasing])
            return predicted(unet, z, t, text, cameras[index])

        return denoising_loss(answer, latents[index], scheduler, rng)

    fit("multiview", unet, loss, Schedule(steps, lr=8e-4), folder, seed)
    return unet


def save_learned(unet: nn.Module, path: Path) -> None:
    """Write the trained parameters in half precision: the others are the single-view U-Net's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: values.detach().half().contiguous() for name, values in learned(unet).items()}, path)
