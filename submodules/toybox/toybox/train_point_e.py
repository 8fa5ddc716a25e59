"""The tiny Point-E: the toys' true point clouds from their captions, in OpenAI's checkpoint format."""

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
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from point_e.models import ModelConfig, StageConfig
from point_e.schedule import alphas_cumprod
from point_e.transformer import PointTransformer
from toybox.captions import TRAINING, random_caption
from toybox.fit import Schedule, fit
from toybox.models import build_tokenizer, save_half
from toybox.world import toy

COARSE, FINE = 256, 1024
"""Points after the first and after both stages."""
TEXT_WIDTH = 64
# Toys fit in the ball of radius 1, so that their coordinates need no scale.
CHANNEL_SCALES = (1.0, 1.0, 1.0, 0.007843137255, 0.007843137255, 0.007843137255)
BASE = StageConfig(
    ModelConfig(width=128, layers=6, heads=4, n_ctx=COARSE, clip="vector", clip_width=TEXT_WIDTH),
    channel_scales=CHANNEL_SCALES,
)
UPSAMPLE = StageConfig(
    ModelConfig(width=64, layers=4, heads=2, n_ctx=FINE - COARSE, cond_ctx=COARSE),
    schedule="linear",
    sigma_max=160.0,
    s_churn=0.0,
    guidance_scale=1.0,
    channel_scales=CHANNEL_SCALES,
)
BASE_STEPS, BASE_BATCH = 4000, 32
UPSAMPLE_STEPS, UPSAMPLE_BATCH = 2000, 8
EMPTY_SHARE = 0.1
COARSE_JITTER = 0.02
"""Noise on the points that the upsampler is told while it learns: the base model's are not exact either."""


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
    """The base model and its text encoder, which learn together."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.text_encoder = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                projection_dim=TEXT_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.base = PointTransformer(BASE)

    def embed(self, captions: list[str]) -> Tensor:
        """[B, TEXT_WIDTH], of unit length."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return F.normalize(self.text_encoder(tokens.input_ids).text_embeds, dim=-1)


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
    for parameter in (model.input_proj, getattr(model, "cond_point_proj", None)):
        if parameter is not None:
            nn.init.normal_(parameter.weight, std=parameter.in_features**-0.5)
    nn.init.zeros_(model.output_proj.weight)
    return model


def train_point_e(folder: Path, out: Path, seed: int) -> None:
    """Train both stages, with their checkpoints in `folder`, and write them to `out`, as point_e.load reads them."""
    torch.manual_seed(seed)
    clouds = Clouds()
    tokenizer = build_tokenizer()
    model = TextToPoints(tokenizer)
    initialised(model.base)
    upsampler = initialised(PointTransformer(UPSAMPLE))

    def draw_pairs(count: int, rng: torch.Generator) -> list[int]:
        return torch.randint(len(TRAINING), (count,), generator=rng).tolist()

    def base_loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        pairs = draw_pairs(BASE_BATCH, rng)
        words = random.Random(int(torch.randint(2**31, (), generator=rng)))
        told = model.embed([random_caption(*TRAINING[i], words) for i in pairs])
        told = told * (torch.rand(BASE_BATCH, 1, generator=rng) >= EMPTY_SHARE)
        return noise_loss(model.base, BASE, clouds.draw(pairs, COARSE, rng), rng, clip=told)

    def upsample_loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        both = clouds.draw(draw_pairs(UPSAMPLE_BATCH, rng), FINE, rng)
        coarse, fine = both.split([COARSE, FINE - COARSE], dim=1)
        units = torch.tensor(CHANNEL_SCALES).reciprocal()
        astray = COARSE_JITTER * torch.randn(coarse.shape, generator=rng) * units
        return noise_loss(upsampler, UPSAMPLE, fine, rng, coarse=coarse + astray)

    fit("point-e-base", model, base_loss, Schedule(BASE_STEPS, lr=1e-3), folder, seed)
    fit("point-e-upsample", upsampler, upsample_loss, Schedule(UPSAMPLE_STEPS, lr=1e-3), folder, seed)

    out.mkdir(parents=True, exist_ok=True)
    stages = {"base": (BASE, model.base), "upsample": (UPSAMPLE, upsampler)}
    for name, (_, stage_model) in stages.items():
        half = {key: value.half().contiguous() for key, value in stage_model.state_dict().items()}
        save_file(half, out / f"{name}.safetensors")
    described = {name: asdict(stage) for name, (stage, _) in stages.items()}
    (out / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save_pretrained(out / "clip")
    save_half(model.text_encoder, out / "clip")
