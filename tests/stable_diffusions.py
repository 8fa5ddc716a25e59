"""Stable Diffusion 1.5, 2.1-base and 2.1 at their true sizes with random weights, from their published configurations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from iterations import sd21
from tests.tiny_diffusers import write_index, write_scheduler, write_tokenizer

WORDS = 49408
"""Words in the vocabulary of all of them, of which 512 are bytes and 2 the ends of a text."""
NOISE = 4_000_037
"""Random numbers that all weights are cut from: as many as a prime, so that the rows of no matrix repeat."""


@dataclass(frozen=True)
class StableDiffusion:
    """The makers of a model's networks, their parameter counts, the U-Net's prediction and the latents' size."""

    name: str
    makers: dict[str, Callable[[], nn.Module]]
    parameters: dict[str, int]
    prediction_type: str = "epsilon"
    sample_size: int = 64


def make_unet_15() -> UNet2DConditionModel:
    return sd21.make_unet(attention_head_dim=8, cross_attention_dim=768, use_linear_projection=False)


def make_text_encoder_15() -> CLIPTextModel:
    return sd21.make_text_encoder(
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
    )


SD15 = StableDiffusion(
    "1.5",
    {"unet": make_unet_15, "vae": sd21.make_vae, "text_encoder": make_text_encoder_15},
    {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
)
SD21_BASE = StableDiffusion(
    "2.1-base",
    {"unet": sd21.make_unet, "vae": sd21.make_vae, "text_encoder": sd21.make_text_encoder},
    sd21.PARAMETERS,
)
SD21 = StableDiffusion("2.1", SD21_BASE.makers, sd21.PARAMETERS, "v_prediction", 96)


def write_folder(model: StableDiffusion, path: Path, *, sample_size: int | None = None) -> Path:
    """Write a model as it is published, in half precision (2.1 to 2.6 GB), and return its path.

    Args:
        sample_size: the latents' width and height, if not the published one; the weights know nothing of it.
    """
    write_index(path)
    write_tokenizer(path / "tokenizer", pairs=WORDS - 514)
    write_scheduler(path / "scheduler", model.prediction_type)
    # One network in memory at a time.
    for seed, (name, make) in enumerate(model.makers.items()):
        network = filled(make, seed)
        if name == "unet":
            network.register_to_config(sample_size=sample_size or model.sample_size)
        network.save_pretrained(path / name)
    return path


def filled(make: Callable[[], nn.Module], seed: int) -> Any:
    """A network in half precision with weights of about the usual sizes, different everywhere, in seconds."""
    with torch.device("meta"):
        network = make()
    # diffusers' own `to` warns about modules that these networks do not have.
    network = nn.Module.to(network, torch.float16).to_empty(device=torch.get_default_device())
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(seed), device="cpu")
    noise = noise.half().to(torch.get_default_device())
    start = 0
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = _cut(noise, start, parameter.numel()).view_as(parameter)
            start = (start + parameter.numel() + 1) % NOISE
            if parameter.ndim > 1:
                parameter.copy_(values / prod(parameter.shape[1:]) ** 0.5)
            else:
                parameter.copy_(0.1 * values + (1 if name.endswith("weight") else 0))
    return network


def _cut(noise: Tensor, start: int, count: int) -> Tensor:
    """Return `count` numbers of `noise` from `start` on, over and over."""
    return noise.repeat(-(-(start + count) // len(noise)))[start : start + count]
