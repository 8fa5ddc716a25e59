"""The tiny Point-E: the toys' true point clouds from their captions, in OpenAI's checkpoint format.

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
from toybox.fit import Schedule, fit
from toybox.models import TEXT_WIDTH, save_half
from toybox.world import COLORS, KINDS, toy

# Toys fit in the ball of radius 1, so that their coordinates need no scale.
CHANNEL_SCALES = (1.0, 1.0, 1.0, 0.007843137255, 0.007843137255, 0.007843137255)
BASE = StageConfig(
    ModelConfig(width=128, layers=6, heads=4, clip="vector", clip_width=TEXT_WIDTH),
    guidance_scale=2.0,
    channel_scales=CHANNEL_SCALES,
)
BASE_STEPS, BASE_POINTS = 4000, 8192
"""Steps, and points in each: few points of many clouds rather than all of few, so that a step sees many toys and times."""
CLOUD_SIZES = (32, 64, 64, 256)
"""In turn. A toy's points are independent of each other, so that it makes four times as many as well."""
COMPOSE_STEPS, COMPOSE_QUARTETS, COMPOSE_WEIGHT = 800, 32, 10.0
COMPOSE_SHARE = 0.3
"""How far the weights go towards the composed ones, as in WiSE-FT (Wortsman et al., 2022): further, all kinds compose but
colours are confused."""
EMPTY_SHARE = 0.1


class Clouds:
    """Random subsets of the toys' surface samples, as clouds of x, y, z and colours from 0 to 255."""

    def __init__(self) -> None:
        truths = [toy(*pair) for pair in TRAINING]
        self.clouds = [
            torch.from_numpy(np.hstack([t.points, t.colors * 255]).astype(np.float32)) for t in truths
        ]

    def draw(self, pairs: list[int], count: int, rng: torch.Generator) -> Tensor:
        """[B, count, 6] of toys by their index in TRAINING."""
        clouds = [self.clouds[i] for i in pairs]
        return torch.stack([c[torch.randint(len(c), (count,), generator=rng)] for c in clouds])


class TextToPoints(nn.Module):
    """The base model and its text encoder, which learn together.

    The encoder begins as the prior's, which tells the toys apart already; a fresh one takes most of the training to.
    """

    def __init__(self, prior: Path) -> None:
        super().__init__()
        self.tokenizer = CLIPTokenizer.from_pretrained(prior / "tokenizer")
        trained = CLIPTextModel.from_pretrained(prior / "text_encoder", dtype=torch.float32)
        self.text_encoder = CLIPTextModelWithProjection(trained.config)
        self.text_encoder.text_model.load_state_dict(trained.state_dict())
        nn.init.eye_(self.text_encoder.text_projection.weight)
        self.base = initialised(PointTransformer(BASE))

    def embed(self, captions: list[str]) -> Tensor:
        """[B, TEXT_WIDTH], of unit length."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return F.normalize(self.text_encoder(tokens.input_ids).text_embeds, dim=-1)


def incoherence(model: TextToPoints, rng: torch.Generator) -> Tensor:
    """Mean |e(k, c) - e(k, c') - e(k', c) + e(k', c')|² over random quartets of kinds k, k' and colours c, c'.

    It is 0 where an embedding is the sum of a kind's and a colour's. Without it a pair that was never seen may be taken
    for another: this looks at words alone, so that held-out pairs can take part.
    """
    words = random.Random(int(torch.randint(2**31, (), generator=rng)))
    captions = []
    for _ in range(COMPOSE_QUARTETS):
        kinds, colors = words.sample(list(KINDS), 2), words.sample(list(COLORS), 2)
        captions += [random_caption(kind, color, words) for kind in kinds for color in colors]
    a, b, c, d = model.embed(captions).unflatten(0, (COMPOSE_QUARTETS, 4)).unbind(1)
    return (a - b - c + d).square().sum(dim=-1).mean()


def noise_loss(
    model: PointTransformer, stage: StageConfig, clouds: Tensor, rng: torch.Generator, **told: Tensor
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """|ε - ε_θ(x_t, t)|² at stratified timesteps, of clouds [B, N, 6] in their own units."""
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
    """Normal weights of variance 1/(16 width) and a silent output, as Point-E's own training began."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.25 * model.config.width**-0.5)
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.input_proj.weight, std=model.input_proj.in_features**-0.5)
    nn.init.zeros_(model.output_proj.weight)
    return model


def train_point_e(folder: Path, out: Path, seed: int) -> None:
    """Train it, with its checkpoints in `folder`, and write it to `out`, as point_e.load reads it.

    The prior is read from the folder above `out`.
    """
    torch.manual_seed(seed)
    clouds = Clouds()
    model = TextToPoints(out.parent)

    def draw_told(count: int, rng: torch.Generator) -> tuple[list[int], Tensor]:
        pairs: list[int] = torch.randint(len(TRAINING), (count,), generator=rng).tolist()
        words = random.Random(int(torch.randint(2**31, (), generator=rng)))
        told = model.embed([random_caption(*TRAINING[i], words) for i in pairs])
        return pairs, told * (torch.rand(count, 1, generator=rng) >= EMPTY_SHARE)

    def base_loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        size = CLOUD_SIZES[step % len(CLOUD_SIZES)]
        pairs, told = draw_told(BASE_POINTS // size, rng)
        return noise_loss(model.base, BASE, clouds.draw(pairs, size, rng), rng, clip=told)

    def compose_loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        astray = COMPOSE_WEIGHT * incoherence(model, rng)
        loss, logs = base_loss(step, rng)
        return loss + astray, {**logs, "compose": astray.detach()}

    fit("point-e-base", model, base_loss, Schedule(BASE_STEPS, lr=2e-3), folder, seed)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    fit("point-e-compose", model, compose_loss, Schedule(COMPOSE_STEPS, lr=1e-3, warmup=50), folder, seed)
    with torch.no_grad():
        for parameter, start in zip(model.parameters(), before):
            parameter.lerp_(start, 1 - COMPOSE_SHARE)

    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.base.state_dict().items()}
    save_file(weights, out / "base.safetensors")
    (out / "config.json").write_text(json.dumps({"base": asdict(BASE)}, indent=2) + "\n")
    model.tokenizer.save_pretrained(out / "clip")
    save_half(model.text_encoder, out / "clip")
