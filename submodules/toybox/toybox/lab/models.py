"""The parts of the miniature priors: the classes and folder layouts of Stable Diffusion 2.1-base and of Z-Image, only smaller."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen3Config,
    Qwen3Model,
)

from toybox.captions import corpus

IMAGE_SIZE = 128
MAX_TOKENS = 16
TEXT_WIDTH = 96


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges make every word of the captions one token.

    Words it has never seen fall apart into letters, as in CLIP.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(corpus(), trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokens = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet), *trained["vocab"]])
    tokens |= dict.fromkeys(["<|startoftext|>", "<|endoftext|>"])
    merges: Any = [tuple(pair) for pair in trained["merges"]]  # annotated as strings, wanted as pairs
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> AutoencoderKL:
    """A VAE of factor 8 and 4 latent channels.

    Its initialisation lets the deep thin stack learn from the first step: weights of variance 1/fan-in,
    residual branches scaled down, a small posterior variance.
    """
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
    )
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            scale = 0.3 if name.endswith(("conv2", "to_out.0")) else 1.0
            nn.init.normal_(module.weight, std=scale * fan_in**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -4.0
    return vae


def build_small_autoencoder() -> AutoencoderTiny:
    """A TAESD in miniature: most of its arithmetic is in an encoder that works at a quarter of the resolution."""
    return AutoencoderTiny(
        encoder_block_out_channels=(24,) * 4,
        num_encoder_blocks=(0, 0, 2, 4),
        decoder_block_out_channels=(16,) * 4,
        num_decoder_blocks=(1, 1, 1, 0),
        act_fn="swish",
    )


def build_unet() -> UNet2DConditionModel:
    """A U-Net with plain blocks at 16² and cross-attention at 8² and 4²."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96, 120),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_controlnet() -> ControlNetModel:
    """A ControlNet as small as SDXL's small ones: the U-Net's encoder without attention."""
    return ControlNetModel(
        block_out_channels=(64, 96, 120),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        conditioning_embedding_out_channels=(16, 24, 32, 48),
    )


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """A CLIP for 64 patches."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=IMAGE_SIZE // 8,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's scheduler: scaled-linear betas, 1000 steps, epsilon prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_flow_text_encoder(tokenizer: CLIPTokenizer) -> Qwen3Model:
    """A Qwen in miniature, of which a pipeline reads what the last layer but one makes."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=TEXT_WIDTH // 4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_transformer() -> ZImageTransformer2DModel:
    """A single stream of 64 patches and at most 32 words."""
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=128,
        n_layers=7,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 8, 8],
    )


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Noise levels as even as its times: latents as few as these need no shift."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def save_half(model: Any, folder: Path) -> None:
    """Write a model's config and its weights as fp16 safetensors; the model stays as it is."""
    copy.deepcopy(model).half().save_pretrained(folder)
