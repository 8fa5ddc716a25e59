"""Configurations of a point diffusion model, and the models that OpenAI published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

POINTS_PER_STAGE = 1024
"""Points that the published base models make; their upsampler adds 3 times as many."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a point transformer.

    n_ctx: points it denoises. clip: its condition, one CLIP vector, a grid of CLIP's image tokens, or
    nothing; clip_width: the width of that vector or of each token. clip_tokens: tokens of the grid. cond_ctx:
    points of the coarser cloud that conditions it, 0 for a base model.
    """

    width: int
    layers: int
    heads: int
    n_ctx: int = POINTS_PER_STAGE
    clip: Literal["none", "vector", "grid"] = "none"
    clip_width: int = 0
    clip_tokens: int = 0
    cond_ctx: int = 0


@dataclass(frozen=True)
class StageConfig:
    """A model and how it is sampled, one stage of a cascade.

    schedule: of the betas over `timesteps`. A cloud's channels (x, y, z, red, green, blue; colours from 0 to 255) are
    scaled and then shifted for the model by channel_scales and channel_biases, so that they lie in [-1, 1]. sigma_min,
    sigma_max: the ends of the Karras schedule; s_churn: noise that its sampler adds (Karras et al., 2022, Algorithm 2).
    steps: of that sampler. guidance_scale: 1 takes the condition as it is, 0 none.
    """

    model: ModelConfig
    schedule: Literal["cosine", "linear"] = "cosine"
    timesteps: int = 1024
    sigma_min: float = 1e-3
    sigma_max: float = 120.0
    s_churn: float = 3.0
    steps: int = 64
    guidance_scale: float = 3.0
    channel_scales: tuple[float, ...] = (2.0, 2.0, 2.0, 0.007843137255, 0.007843137255, 0.007843137255)
    channel_biases: tuple[float, ...] = (0.0, 0.0, 0.0, -1.0, -1.0, -1.0)


def stage_from_json(values: Mapping[str, Any]) -> StageConfig:
    """The stage of values from JSON, the inverse of dataclasses.asdict, where tuples are lists.

    A folder of our own layout holds `config.json`, {"base": a stage, "upsample": a stage} or the first alone,
    the weights `base.safetensors` and `upsample.safetensors`, and CLIP in `clip/`. Raises TypeError for
    unknown or missing keys and ValueError for an unknown schedule.
    """
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if values.get("schedule", "cosine") not in ("cosine", "linear"):
        raise ValueError(f"schedule is {values['schedule']!r}, but it must be 'cosine' or 'linear'")
    return StageConfig(**{**values, "model": ModelConfig(**values["model"])})


@dataclass(frozen=True)
class Published:
    """A checkpoint that OpenAI published: what is in it, its file, and the file's size and SHA-256 where known."""

    stage: StageConfig
    file: str
    size: int | None = None
    sha256: str | None = None


def _base(width: int, layers: int, heads: int, clip: Literal["none", "vector", "grid"]) -> StageConfig:
    clip_width, clip_tokens = {"none": (0, 0), "vector": (768, 0), "grid": (1024, 256)}[clip]
    return StageConfig(
        ModelConfig(width, layers, heads, clip=clip, clip_width=clip_width, clip_tokens=clip_tokens)
    )


_UPSAMPLE = StageConfig(
    ModelConfig(
        512, 12, 8, n_ctx=3 * POINTS_PER_STAGE, clip="grid", clip_width=1024, clip_tokens=256, cond_ctx=POINTS_PER_STAGE
    ),
    schedule="linear",
    sigma_max=160.0,
    s_churn=0.0,
)  # fmt: skip

DEFAULT = "base40M-textvec"
"""The base model that makes points from text; the others make them from images or of anything."""
BASE_MODELS: dict[str, Published] = {
    "base40M-textvec": Published(
        _base(512, 12, 8, "vector"),
        "base_40m_textvec.pt",
        161385413,
        "c01c13df8f2f6ebdc4daf360625350a3715e7cd3ed4ac93e577f9f1958bfccc4",
    ),
    "base40M-imagevec": Published(_base(512, 12, 8, "vector"), "base_40m_imagevec.pt"),
    "base40M-uncond": Published(_base(512, 12, 8, "none"), "base_40m_uncond.pt"),
    "base40M": Published(_base(512, 12, 8, "grid"), "base_40m.pt"),
    "base300M": Published(_base(1024, 24, 16, "grid"), "base_300m.pt"),
    "base1B": Published(_base(2048, 24, 32, "grid"), "base_1b.pt"),
}
UPSAMPLER = Published(
    _UPSAMPLE,
    "upsample_40m.pt",
    161934137,
    "07881c369ee0bef1a45b8ff1f464626a099a6023eef4197e4a445f5dce37ed20",
)
