"""Train what a picture of a toy needs to prompt the shipped U-Net: an image encoder, and an IP-Adapter to its embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from config.model_params import ModelParams
from toybox.captions import NAMES
from toybox.lab.denoising import denoising_loss
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import TEXT_WIDTH, build_image_encoder, build_scheduler
from toybox.lab.renders import Renders, backgrounds
from toybox.lab.training_views import TrainingViews

ENCODER_STEPS, ENCODER_BATCH = 2000, 32
STEPS, BATCH = 1000, 32
TOKENS = 4
"""Tokens of a picture."""
FRONT = 50.0
"""Degrees from the front up to which a view is a picture of the front."""
PICTURE_DROPPED = 0.15
"""Share of the views that are shown no picture."""
WHITE_SHARE = 0.5
"""Share of the pictures that are over white."""


class Fronts:
    """The views that show a toy's front. Raises ValueError if a toy has none.

    Attributes:
        rows: their numbers [F] among all views, sorted by toy.
        name: index [F] into NAMES.
    """

    def __init__(self, renders: Renders) -> None:
        rows = np.flatnonzero(np.abs(renders.azimuth) <= FRONT)
        rows = rows[np.argsort(renders.name[rows], kind="stable")]
        self.rows, self.name = rows, torch.from_numpy(renders.name[rows]).long()
        self._count = torch.bincount(self.name, minlength=len(NAMES))
        self._first = self._count.cumsum(0) - self._count
        if lacking := {*renders.name.tolist()} - {*self.name.tolist()}:
            raise ValueError(f"{NAMES[min(lacking)]} has no view within {FRONT:g} degrees of its front.")

    def of(self, name: Tensor, rng: torch.Generator) -> Tensor:
        """Draw one for each of the toys `name` [B], as a place [B] in `rows`."""
        drawn = torch.rand(len(name), generator=rng, dtype=torch.float64) * self._count[name]
        return self._first[name] + drawn.long()


def pixels(images: Tensor) -> Tensor:
    """Normalise images [B, 3, H, W] in [0, 1] as CLIP's are."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (images - mean) / std


def train_image_encoder(
    renders: Renders,
    meanings: Tensor,
    model_params: ModelParams,
    folder: Path,
    seed: int,
    steps: int = ENCODER_STEPS,
) -> CLIPVisionModelWithProjection:
    """Train an image encoder, so that a picture's embedding is what the toy's caption means.

    meanings: [len(NAMES), TEXT_WIDTH]. In CLIP too the two are near; here it is the error's square that brings them so.
    """
    torch.manual_seed(seed)
    encoder, fronts = build_image_encoder(), Fronts(renders)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(fronts.rows), (ENCODER_BATCH,), generator=rng)
        behind = backgrounds(model_params, ENCODER_BATCH, rng)
        white = torch.rand(ENCODER_BATCH, 1, generator=rng) < WHITE_SHARE
        images = renders.images(fronts.rows[index], torch.where(white, torch.ones(3), behind))
        found = encoder(pixels(images)).image_embeds
        return F.mse_loss(found, meanings[fronts.name[index]]), {}

    fit("image-encoder", encoder, loss, Schedule(steps, lr=1e-3), folder, seed)
    return encoder


def adapted(unet: UNet2DConditionModel) -> nn.ModuleList:
    """Put a new adapter into a U-Net, and return its modules: the projection, then each attention's.

    It attends to a picture's tokens as the U-Net does to a text's, with weights of its own that begin as those.
    """
    from diffusers.loaders import IPAdapterMixin

    projection = nn.Linear(TEXT_WIDTH, TOKENS * TEXT_WIDTH)
    norm = nn.LayerNorm(TEXT_WIDTH)
    image_proj = {
        f"{part}.{name}": values.detach()
        for part, layer in (("proj", projection), ("norm", norm))
        for name, values in layer.state_dict().items()
    }
    across = [name for name in unet.attn_processors if "attn2" in name]
    ip_adapter = {
        f"{2 * place + 1}.{layer}_ip.weight": unet.get_submodule(name.removesuffix(".processor")).get_submodule(layer).weight.detach().clone()
        for place, name in enumerate(across)
        for layer in ("to_k", "to_v")
    }  # fmt: skip
    loader = IPAdapterMixin()
    loader.unet = unet
    weights = {"image_proj": image_proj, "ip_adapter": ip_adapter}
    loader.load_ip_adapter(weights, subfolder="", weight_name="", low_cpu_mem_usage=False)
    attention = [unet.attn_processors[name] for name in across]
    return nn.ModuleList([unet.encoder_hid_proj, *attention]).requires_grad_(True)


def train_image_prompt(
    unet: UNet2DConditionModel,
    encoder: CLIPVisionModelWithProjection,
    views: TrainingViews,
    renders: Renders,
    folder: Path,
    seed: int,
    steps: int = STEPS,
) -> nn.ModuleList:
    """Train an adapter on the first views, which `renders` hold, each with a picture of its toy's front."""
    torch.manual_seed(seed)
    unet.requires_grad_(False)
    modules, scheduler, fronts = adapted(unet), build_scheduler(), Fronts(renders)
    with torch.no_grad():
        embeds = torch.cat(
            [
                encoder(pixels(renders.images(rows, torch.ones(len(rows), 3)))).image_embeds
                for rows in np.array_split(fronts.rows, max(1, len(fronts.rows) // 64))
            ]
        )

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        index = torch.randint(len(renders), (BATCH,), generator=rng)
        shown = embeds[fronts.of(views.name[index], rng)]
        dropped = torch.rand(BATCH, 1, generator=rng) < PICTURE_DROPPED
        added = {"image_embeds": [torch.where(dropped, 0.0, shown)[:, None]]}

        def answer(z: Tensor, t: Tensor) -> Tensor:
            predicted: Tensor = unet(z, t, views.conditions(index, rng)[0], added_cond_kwargs=added).sample
            return predicted

        return denoising_loss(answer, views.latents[index], scheduler, rng)

    fit("image-prompt", modules, loss, Schedule(steps, lr=1e-3, warmup=100), folder, seed)
    return modules


def save_adapter(modules: nn.ModuleList, path: Path) -> None:
    """Write an adapter under its authors' names, in half precision."""
    parts: list[Any] = [*modules]
    projection, *attention = parts
    layers = projection.image_projection_layers[0]
    weights = {
        f"image_proj.{part}.{name}": values
        for part, layer in (("proj", layers.image_embeds), ("norm", layers.norm))
        for name, values in layer.state_dict().items()
    }
    weights |= {
        f"ip_adapter.{2 * place + 1}.{layer}_ip.weight": getattr(each, f"{layer}_ip")[0].weight
        for place, each in enumerate(attention)
        for layer in ("to_k", "to_v")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: values.detach().half().contiguous() for name, values in weights.items()}, path)
