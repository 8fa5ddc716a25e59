"""Random-weight models of every family in diffusers' pipelines, saved by these: about 0.1 M parameters each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderDC, AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers import FlowMatchEulerDiscreteScheduler as FlowEuler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from tests.tiny_diffusers import write_tokenizer

TEXT = 12
"""Width of each CLIP."""
SIDE = 32
"""Pixels."""


def write_family(name: str, path: Path) -> Path:
    """Write a pipeline by its class's name, and return its path."""
    torch.manual_seed(0)
    MAKERS[name](path).save_pretrained(path)
    return path


def stable_diffusion_xl(path: Path) -> Any:
    tokenizers = [write_tokenizer(path / name, length=16) for name in ("tokenizer", "tokenizer_2")]
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * TEXT,
        attention_head_dim=4,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=clip(CLIPTextModel, tokenizers[0]),
        text_encoder_2=clip(CLIPTextModelWithProjection, tokenizers[1]),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )


def stable_diffusion_3(path: Path, *, t5: bool = True) -> Any:
    tokenizers = [write_tokenizer(path / name, length=16) for name in ("tokenizer", "tokenizer_2")]
    width = 2 * TEXT
    third = byte_tokenizer() if t5 else None
    config = transformers.T5Config(
        vocab_size=300, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, tie_word_embeddings=False
    )
    return diffusers.StableDiffusion3Pipeline(
        vae=autoencoder(scaling_factor=1.5, shift_factor=0.1),
        text_encoder=clip(CLIPTextModelWithProjection, tokenizers[0]),
        text_encoder_2=clip(CLIPTextModelWithProjection, tokenizers[1]),
        text_encoder_3=transformers.T5EncoderModel(config) if t5 else None,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=third,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=width,
            pooled_projection_dim=2 * TEXT,
            pos_embed_max_size=32,
        ),
        scheduler=FlowEuler(shift=3.0),
    )


def sana(path: Path) -> Any:
    width = 8
    config = transformers.Gemma2Config(
        vocab_size=300,
        hidden_size=width,
        head_dim=4,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=2,
    )
    blocks = ("ResBlock", "EfficientViTBlock")
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    return diffusers.SanaPipeline(
        vae=vae,
        text_encoder=transformers.Gemma2Model(config),
        tokenizer=byte_tokenizer(),
        transformer=diffusers.SanaTransformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=width,
        ),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def z_image(path: Path) -> Any:
    width = 16
    config = transformers.Qwen3Config(
        vocab_size=300,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    return diffusers.ZImagePipeline(
        vae=autoencoder(scaling_factor=0.36, shift_factor=0.12),
        text_encoder=transformers.Qwen3Model(config),
        tokenizer=byte_tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=width,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 64, 64],
        ),
        scheduler=FlowEuler(shift=6.0),
    )


MAKERS: dict[str, Callable[[Path], Any]] = {
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "SanaPipeline": sana,
    "ZImagePipeline": z_image,
}


def autoencoder(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIDE,
        **settings,
    )


def clip(kind: Any, tokenizer: Any) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT,
            intermediate_size=2 * TEXT,
            projection_dim=TEXT,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte, and a template for conversations."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<pad>", "<eos>", *letters]
    whole = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[]))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="<pad>",
        eos_token="<eos>",
        chat_template="{% for message in messages %}{{ message.content }}:{% endfor %}",
    )
