"""Stable Diffusion 2.1-base at its true size with random weights, from its published configuration.

For measuring time and memory, which do not depend on what the weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from guidance import Condition
from guidance.prior import StableDiffusionPrior
from guidance.prior.parametrization import Parametrization
from guidance.schedule import Schedule

PARAMETERS = {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
"""Published parameter counts of the three networks."""
META = torch.device("meta")


def make_unet(**changes: Any) -> UNet2DConditionModel:
    """The U-Net; with `changes`, that of another Stable Diffusion."""
    settings = {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=768,
        scaling_factor=0.18215,
    )


def make_text_encoder(**changes: Any) -> CLIPTextModel:
    """The text encoder; with `changes`, that of another Stable Diffusion."""
    settings = {
        "vocab_size": 49408,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "projection_dim": 512,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
    }
    return CLIPTextModel(CLIPTextConfig(**{**settings, **changes}))


class RandomPrior(StableDiffusionPrior):
    """Stable Diffusion 2.1-base with random weights, made where they are needed. Its text encoder has no
    weights: the embeddings of prompts are random too, and it would be freed before the first iteration
    anyway.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        networks: dict[str, Any] = {}
        for name, make in (("vae", make_vae), ("unet", make_unet)):
            networks[name] = _made(make, device, dtype)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        super().__init__(
            **networks,
            text_encoder=_made(make_text_encoder, META, dtype),
            tokenizer=None,  # type: ignore[arg-type]
            predicts=Parametrization("epsilon", Schedule.diffusion(torch.cumprod(1 - betas, 0), 1)),
        )

    def embed(self, prompts: Sequence[str]) -> Condition:
        """Random embeddings [P, 77, 1024] float32, as large as CLIP's."""
        rng = torch.Generator().manual_seed(0)
        return Condition({"text": torch.randn(len(prompts), 77, 1024, generator=rng).to(self.device)})


def _made(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> Any:
    """A network of this precision from the start: in float32 it might not fit beside another one."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return make()
    finally:
        torch.set_default_dtype(usual)
