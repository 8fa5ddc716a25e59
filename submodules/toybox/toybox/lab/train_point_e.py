"""Train the tiny Point-E: the toys' true point clouds from their captions, in OpenAI's checkpoint format.

It makes 1,024 points, as OpenAI's base models do, and does without an upsampler.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from point_e.models import ModelConfig, StageConfig
from point_e.schedule import alphas_cumprod
from point_e.transformer import PointTransformer
from toybox.captions import TRAINING, random_caption
from toybox.lab.fit import Schedule, fit
from toybox.lab.models import TEXT_WIDTH, save_half
from toybox.lab.train_text import tokens
from toybox.point_judge import shape_of
from toybox.world import toy

# Toys fit in the ball of radius 1, so that their coordinates need no scale.
CHANNEL_SCALES = (1.0, 1.0, 1.0, 0.007843137255, 0.007843137255, 0.007843137255)
BASE = StageConfig(
    ModelConfig(width=128, layers=6, heads=4, clip="vector", clip_width=TEXT_WIDTH),
    steps=24,  # 64 make no better toys
    guidance_scale=1.0,  # more pushes points outwards
    channel_scales=CHANNEL_SCALES,
)
STEPS, POINTS = 5000, 8192
"""Steps, and points in each: few points of many clouds rather than all of few, so that a step sees many toys and times."""
CLOUD_SIZES = (32, 64, 64, 256)
"""Sizes of the clouds, in turn. A toy's points are independent of each other, so that it makes four times as
many as well.
"""
PHRASINGS = 4
"""Captions of a toy that are encoded, once, before training."""
EMPTY_SHARE = 0.1


class Clouds:
    """Random subsets of the toys' surface samples, as clouds of x, y, z and colours from 0 to 255."""

    def __init__(self) -> None:
        truths = [toy(name) for name in TRAINING]
        self.clouds = [
            torch.from_numpy(np.hstack([t.points, t.colors * 255]).astype(np.float32)) for t in truths
        ]

    def draw(self, names: list[int], count: int, rng: torch.Generator) -> Tensor:
        """Clouds [B, count, 6] of toys by their index in TRAINING."""
        clouds = [self.clouds[i] for i in names]
        return torch.stack([c[torch.randint(len(c), (count,), generator=rng)] for c in clouds])


def noise_loss(
    model: PointTransformer, stage: StageConfig, clouds: Tensor, rng: torch.Generator, **told: Tensor
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Loss |ε - ε_θ(x_t, t)|² at stratified timesteps, of clouds [B, N, 6] in their own units."""
    batch = len(clouds)
    abar = torch.from_numpy(alphas_cumprod(stage.schedule, stage.timesteps)).float()
    strata = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
    t = (strata * stage.timesteps).long()
    x_0 = clouds * torch.tensor(stage.channel_scales) + torch.tensor(stage.channel_biases)
    noise = torch.randn(x_0.shape, generator=rng)
    a = abar[t, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        eps = model(a.sqrt() * x_0 + (1 - a).sqrt() * noise, t, **told)
    error = (eps.float() - noise).square().mean(dim=(1, 2))
    return error.mean(), {"late": error[t > stage.timesteps // 2].mean().detach()}


def initialised(model: PointTransformer) -> PointTransformer:
    """The model with normal weights of variance 1/(16 width) and a silent output, as Point-E's own training began."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.25 * model.config.width**-0.5)
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.input_proj.weight, std=model.input_proj.in_features**-0.5)
    nn.init.zeros_(model.output_proj.weight)
    return model


def text_encoder_of(prior: Path) -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """The prior's text encoder, with a projection that changes nothing: CLIP's part in OpenAI's layout."""
    tokenizer = CLIPTokenizer.from_pretrained(prior / "tokenizer")
    trained = CLIPTextModel.from_pretrained(prior / "text_encoder", dtype=torch.float32)
    encoder = CLIPTextModelWithProjection(trained.config)
    encoder.text_model.load_state_dict(trained.state_dict())
    nn.init.eye_(encoder.text_projection.weight)
    return tokenizer, encoder.eval().requires_grad_(False)


def train_point_e(folder: Path, out: Path, seed: int) -> None:
    """Train the tiny Point-E, with its checkpoints in `folder`, and write it to `out`, as point_e.load reads
    it.

    The prior is read from the folder above `out`.
    """
    torch.manual_seed(seed)
    clouds, model = Clouds(), initialised(PointTransformer(BASE))
    tokenizer, encoder = text_encoder_of(out.parent)
    words = random.Random(seed)
    captions = [random_caption(name, words) for name in TRAINING for _ in range(PHRASINGS)]
    embeddings = F.normalize(encoder(tokens(tokenizer, captions)).text_embeds, dim=-1)
    told = embeddings.unflatten(0, (len(TRAINING), PHRASINGS))
    # As often each shape: of those on tables there are many names.
    shapes = [shape_of(name) for name in TRAINING]
    evenly = torch.tensor([1 / shapes.count(shape) for shape in shapes])

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        size = CLOUD_SIZES[step % len(CLOUD_SIZES)]
        count = POINTS // size
        chosen = torch.multinomial(evenly, count, replacement=True, generator=rng)
        clip = told[chosen, torch.randint(PHRASINGS, (count,), generator=rng)]
        clip = clip * (torch.rand(count, 1, generator=rng) >= EMPTY_SHARE)
        return noise_loss(model, BASE, clouds.draw(chosen.tolist(), size, rng), rng, clip=clip)

    fit("point-e", model, loss, Schedule(STEPS, lr=2e-3), folder, seed)

    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, out / "base.safetensors")
    (out / "config.json").write_text(json.dumps({"base": asdict(BASE)}, indent=2) + "\n")
    tokenizer.save_pretrained(out / "clip")
    save_half(encoder, out / "clip")
