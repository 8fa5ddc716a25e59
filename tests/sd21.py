"""Stable Diffusion 2.1-base at its true size with random weights, from its published configuration.

For measuring time and memory, and for running the whole pipeline at full scale without the download.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from tests.tiny_diffusers import write_scheduler, write_tokenizer

PARAMETERS = {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
"""Published parameter counts of the three networks."""


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
    )


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


def make_text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=1024,
            intermediate_size=4096,
            projection_dim=512,
            num_hidden_layers=23,
            num_attention_heads=16,
            max_position_embeddings=77,
            hidden_act="gelu",
        )
    )


def write_sd21_folder(path: Path, dtype: torch.dtype, *, seed: int = 0) -> Path:
    """Write the folder (2.6 GB in half precision, twice that in single) and return its path.

    The tokenizer is a byte-level one made on the fly: what a prompt says is lost on random weights anyway.
    """
    torch.manual_seed(seed)
    write_tokenizer(path / "tokenizer")
    write_scheduler(path / "scheduler", "epsilon")
    # One network in memory at a time.
    for name, make in (("unet", make_unet), ("vae", make_vae), ("text_encoder", make_text_encoder)):
        network: nn.Module = make()
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == PARAMETERS[name], f"{name} has {count} parameters, not {PARAMETERS[name]}"
        # diffusers' own `to` warns about modules that these networks do not have.
        nn.Module.to(network, dtype).save_pretrained(path / name)  # type: ignore[operator]
    return path
