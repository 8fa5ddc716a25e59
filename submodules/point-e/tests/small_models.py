"""Point transformers of every kind with random weights, small enough to compare in double precision."""

from __future__ import annotations

from dataclasses import replace

import torch

from point_e.models import ModelConfig, StageConfig
from point_e.sampler import Condition
from point_e.transformer import PointTransformer

WIDTH, HEADS, POINTS, COARSE = 32, 4, 14, 9
_SIZES = ModelConfig(WIDTH, layers=2, heads=HEADS, n_ctx=POINTS)
STAGES = {
    name: StageConfig(replace(_SIZES, **sizes), schedule=schedule, sigma_max=sigma_max)
    for name, sizes, schedule, sigma_max in (
        ("unconditional", {}, "cosine", 120.0),
        ("vector", {"clip": "vector", "clip_width": 24}, "cosine", 120.0),
        ("grid", {"clip": "grid", "clip_width": 20, "clip_tokens": 5}, "cosine", 120.0),
        ("upsampler", {"clip": "grid", "clip_width": 20, "clip_tokens": 5, "cond_ctx": COARSE}, "linear", 160.0),
        ("upsampler told by a vector", {"clip": "vector", "clip_width": 24, "cond_ctx": COARSE}, "linear", 160.0),
        ("upsampler without CLIP", {"cond_ctx": COARSE}, "linear", 160.0),
    )
}  # fmt: skip


def model_of(stage: StageConfig, seed: int = 0) -> PointTransformer:
    """A model in double precision, with no parameter at a value that would hide it, such as a bias of 0."""
    model = PointTransformer(stage).double().requires_grad_(False)
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.copy_(noise * parameter.shape[1] ** -0.5 if parameter.ndim == 2 else 1 + noise / 3)
    if stage.model.cond_ctx:  # which were rounded to single precision
        model.channel_scales.copy_(torch.tensor(stage.channel_scales, dtype=torch.float64))
    return model


def condition_of(stage: StageConfig, batch: int, seed: int = 1) -> Condition:
    """CLIP vectors of unit length, or grids, and coarse clouds in their own units, as the kind of model needs."""
    rng = torch.Generator().manual_seed(seed)
    config = stage.model
    clip = coarse = None
    if config.clip == "vector":
        clip = torch.randn(batch, config.clip_width, generator=rng, dtype=torch.float64)
        clip /= clip.norm(dim=1, keepdim=True)
    elif config.clip == "grid":
        clip = torch.randn(batch, config.clip_tokens, config.clip_width, generator=rng, dtype=torch.float64)
    if config.cond_ctx:
        scale = torch.tensor([1, 1, 1, 255, 255, 255], dtype=torch.float64)
        coarse = torch.rand(batch, config.cond_ctx, 6, generator=rng, dtype=torch.float64) * scale
        coarse[..., :3] -= 0.5
    return Condition(clip=clip, coarse=coarse)
