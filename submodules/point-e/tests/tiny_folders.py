"""Folders of our own layout, as small as can be, with random weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file
from small_models import model_of
from tiny_clip import IMAGE, PATCH, PROJECTION, WIDTH, write_clip

from point_e.models import ModelConfig, StageConfig

COARSE, FINE = 10, 25
TEXT = ModelConfig(width=32, layers=1, heads=2, n_ctx=COARSE, clip="vector", clip_width=PROJECTION)
IMAGES = ModelConfig(
    width=32,
    layers=1,
    heads=2,
    n_ctx=COARSE,
    clip="grid",
    clip_width=WIDTH,
    clip_tokens=(IMAGE // PATCH) ** 2,
)
NOTHING = ModelConfig(width=32, layers=1, heads=2, n_ctx=COARSE)


def upsampler_of(clip_width: int = WIDTH, clip_tokens: int = (IMAGE // PATCH) ** 2) -> StageConfig:
    model = ModelConfig(
        width=32, layers=1, heads=2, n_ctx=FINE - COARSE, clip="grid", clip_width=clip_width,
        clip_tokens=clip_tokens, cond_ctx=COARSE,
    )  # fmt: skip
    return StageConfig(model, schedule="linear", sigma_max=160.0, s_churn=0.0)


def write_folder(folder: Path, base: ModelConfig) -> Path:
    """Write a base model and an upsampler that sees images, with CLIP in `clip/`."""
    stages = {"base": StageConfig(base), "upsample": upsampler_of()}
    folder.mkdir(parents=True)
    for seed, (name, stage) in enumerate(stages.items()):
        state = model_of(stage, seed).state_dict()
        save_file(
            {key: value.float().contiguous() for key, value in state.items()}, folder / f"{name}.safetensors"
        )
    described = {name: asdict(stage) for name, stage in stages.items()}
    (folder / "config.json").write_text(json.dumps(described))
    write_clip(folder / "clip")
    return folder
