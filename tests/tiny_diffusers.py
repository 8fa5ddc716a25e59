"""Random-weight diffusers folders in the layout of Stable Diffusion, made on the fly."""

from __future__ import annotations

import json
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

MAX_TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, *, length: int = MAX_TOKENS, pairs: int = 0) -> CLIPTokenizer:
    """Write a CLIP tokenizer with a token for each byte, alone and at a word's end, and for `pairs` pairs of bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = list(islice(product(letters, letters), pairs))
    pieces = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), START, END]
    tokenizer = CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,  # type: ignore[arg-type]
        model_max_length=length,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_scheduler(folder: Path, prediction_type: str, *, steps_offset: int = 1) -> None:
    """Write the noise schedule of Stable Diffusion."""
    DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=steps_offset,
        prediction_type=prediction_type,
    ).save_pretrained(folder)


def write_index(folder: Path, pipeline: str = "StableDiffusionPipeline") -> None:
    """Write the list of the parts, which names the pipeline that a folder is of."""
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    index = {"_class_name": pipeline, **parts}
    (folder / "model_index.json").write_text(json.dumps(index))


def write_tiny_folder(
    path: Path, *, prediction_type: str = "epsilon", seed: int = 0, in_channels: int = 4
) -> Path:
    """Write a complete folder of about 0.1 M random parameters that works on 32x32 images with 4x16x16 latents."""
    torch.manual_seed(seed)
    tokenizer = write_tokenizer(path / "tokenizer", length=16)
    write_scheduler(path / "scheduler", prediction_type)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
    ).save_pretrained(path / "vae")
    UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(path / "unet")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=12,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(path / "text_encoder")
    return path


def write_tiny_instruct(path: Path) -> Path:
    """Write a random InstructPix2Pix."""
    write_index(write_tiny_folder(path, in_channels=8), "StableDiffusionInstructPix2PixPipeline")
    return path


def write_tiny_small_encoder(path: Path, **changes: Any) -> Path:
    """Write a random AutoencoderTiny whose latents have the shape of those of the tiny folder."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    AutoencoderTiny(**settings | changes).save_pretrained(path)
    return path


def write_tiny_controlnet(path: Path, model: Path, *, seed: int = 2, **changes: Any) -> Path:
    """Write a random ControlNet for the U-Net of a tiny folder, whose layers that are zero before training are not."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    settings = {"conditioning_embedding_out_channels": (4, 8), **changes}
    net = ControlNetModel.from_unet(unet, load_weights_from_unet=False, **settings)
    for name, parameter in net.named_parameters():
        if name.startswith(("controlnet_", "controlnet_cond_embedding.conv_out")):
            torch.nn.init.normal_(parameter, std=0.3)
    net.save_pretrained(path)
    return path


def write_tiny_ip_adapter(path: Path, model: Path, *, plus: bool = False, seed: int = 3) -> Path:
    """Write a random IP-Adapter for the U-Net of a tiny folder, in the layout of its authors, and its image encoder beside it.

    plus: of the kind that reads a vector for each place of the picture.
    """
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=10,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(path / "image_encoder")
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    width, inner = unet.config.cross_attention_dim, 64
    if plus:
        sizes = {"latents": (1, 3, inner), "proj_in.weight": (inner, 16), "proj_in.bias": (inner,)}
        sizes |= {"proj_out.weight": (width, inner), "proj_out.bias": (width,)}
        sizes |= {f"norm_out.{name}": (width,) for name in ("weight", "bias")}
        for layer in (f"layers.{index}" for index in range(4)):
            ends = ("0.norm1", "0.norm2", "1.0")
            sizes |= {f"{layer}.{end}.{name}": (inner,) for end in ends for name in ("weight", "bias")}
            sizes |= {f"{layer}.0.to_q.weight": (inner, inner), f"{layer}.0.to_kv.weight": (2 * inner, inner)}
            sizes |= {f"{layer}.0.to_out.weight": (inner, inner)}
            sizes |= {f"{layer}.1.1.weight": (4 * inner, inner), f"{layer}.1.3.weight": (inner, 4 * inner)}
    else:
        sizes = {
            "proj.weight": (4 * width, 10),
            "proj.bias": (4 * width,),
            "norm.weight": (width,),
            "norm.bias": (width,),
        }
    weights: dict[str, Tensor] = {f"image_proj.{name}": torch.randn(size) for name, size in sizes.items()}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            rows = len(unet.get_submodule(name.removesuffix(".processor")).to_k.weight)
            weights |= {f"ip_adapter.{index}.to_{what}_ip.weight": torch.randn(rows, width) for what in "kv"}
    save_file(weights, path / "adapter.safetensors")
    return path
