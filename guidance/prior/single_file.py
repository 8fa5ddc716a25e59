"""Header of a single file (names, shapes, metadata): what the file is, and which weights it lacks.

Only the header is read, so this takes no time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from guidance.prior.family import FITS, TAKES_CHANNELS, WIDTHS
from guidance.prior.libraries import in_short
from guidance.prior.model_files import PriorError, SingleFile

NETWORKS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
"""Each network's prefix in the original layout."""
ELSEWHERE = {
    "conditioner.embedders.": "Stable Diffusion XL",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "FLUX or another transformer",
    "double_blocks.": "FLUX or another transformer",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
}
"""First letters of a tensor's name -> what a file with it is."""
LORA_MARKS = (
    ".lora_up.",
    ".lora_down.",
    ".lora_A.",
    ".lora_B.",
    ".lora.up.",
    ".lora.down.",
    ".hada_",
    ".lokr_",
)
WORD_MARKS = {"emb_params", "string_to_param", "clip_l", "clip_g"}
FIRST, LAST = "input_blocks.0.0.weight", "out.2.weight"


@dataclass(frozen=True)
class Header:
    """Names and shapes of a file's tensors, and its metadata."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def header_of(model_key: str, file: SingleFile) -> Header:
    """Read the header of a file that must be a whole Stable Diffusion like its base.

    Raises: PriorError, one sentence on what it is, if it is something else.
    """
    try:
        header = _read_header(file.path)
    except (OSError, SafetensorError) as error:
        raise PriorError(
            f"model_key '{model_key}' cannot be read as .safetensors ({in_short(error)}): fetch it again."
        ) from None
    if why := _misfit(header, file.base):
        raise PriorError(f"model_key '{model_key}' {why}.")
    return header


def _read_header(path: Path) -> Header:
    with safe_open(path, framework="pt") as tensors:
        names = tensors.keys()
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
        return Header(shapes, tensors.metadata() or {})


def _misfit(header: Header, base: Path) -> str | None:
    """Return why a file cannot guide, as the end of a sentence that begins with it."""
    names = header.shapes
    if any(mark in name for name in names for mark in LORA_MARKS):
        return "is a LoRA, no whole model: give it as --LoRA_path beside the model that it was made for"
    if WORD_MARKS & set(names) or (names and all("<" in name for name in names)):
        return "is a textual inversion, no whole model: give it as --textual_inversion_path beside a model"
    for start, what in ELSEWHERE.items():
        if any(name.startswith(start) for name in names):
            return f"is {what} (it holds {start}*); {FITS}"
    prefix = NETWORKS["unet"]
    if prefix + FIRST not in names:
        if any(name.startswith(prefix) for name in names):
            return f"is another kind of model (its {prefix}* are no U-Net of Stable Diffusion); {FITS}"
        return f"is {_part(names)}, no whole model in the layout of Stable Diffusion ({prefix}*); {FITS}"
    unet = json.loads((base / "unet" / "config.json").read_text(encoding="utf-8"))
    takes, gives = _size(names, prefix + FIRST, 1), _size(names, prefix + LAST, 0)
    if takes != unet.get("in_channels", 4):
        return f"is {TAKES_CHANNELS.get(takes, 'another kind of model')} (its U-Net takes {takes} channels); {FITS}"
    if gives not in (0, takes):
        return f"is another kind of model (its U-Net takes {takes} channels and gives {gives}); {FITS}"
    if any(name.startswith(prefix + "label_emb.") for name in names):
        return f"is unCLIP, Stable Diffusion XL or another model of classes (it holds {prefix}label_emb.*); {FITS}"
    reads = next((_size(names, name, 1) for name in names if name.endswith(".attn2.to_k.weight")), 0)
    of_base = unet.get("cross_attention_dim", 1280)
    if isinstance(of_base, int) and reads not in (0, of_base):
        return (
            f"has a U-Net that reads text of width {reads}{WIDTHS.get(reads, '')}, but that of base_model_key {base} "
            f"reads {of_base}{WIDTHS.get(of_base, '')}: base_model_key must be the model that the file was made from"
        )
    return None


def _size(shapes: Mapping[str, tuple[int, ...]], name: str, dimension: int) -> int:
    """Size of a tensor in one dimension; 0 if there is no such tensor or dimension."""
    return next(iter(shapes.get(name, ())[dimension : dimension + 1]), 0)


def _part(names: Mapping[str, tuple[int, ...]]) -> str:
    """Name the part of a model that a file holds."""
    starts = {name.split(".")[0] for name in names}
    if {"encoder", "decoder"} <= starts or starts == {"first_stage_model"}:
        return "an autoencoder (VAE) alone"
    if {"down_blocks", "up_blocks", "conv_in"} <= starts:
        return "a U-Net alone, in diffusers layout"
    if "text_model" in starts or starts == {"cond_stage_model"}:
        return "a text encoder alone"
    return "another kind of file"


def missing_weights(file: SingleFile) -> list[str]:
    """Names, "network.weight", of the weights that the base's networks have and the file has not.

    Diffusers, which reads the file, would leave them random. Only names and shapes are looked at: from the file
    only its header is read, and the networks are made without memory.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as ldm
    from transformers import CLIPTextConfig, CLIPTextModel

    shapes = _read_header(file.path).shapes
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(file.base, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(file.base, subfolder="vae"))
        text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(file.base, subfolder="text_encoder"))
    # Stable Diffusion 2 has OpenCLIP's text encoder, with the names and the fused projections of that library.
    if ldm.is_open_clip_model(stored):
        text = ldm.convert_open_clip_checkpoint(text_encoder, stored)
    else:
        text = ldm.convert_ldm_clip_checkpoint(stored)
    there = {
        "unet": ldm.convert_ldm_unet_checkpoint(stored, unet.config),
        "vae": ldm.convert_ldm_vae_checkpoint(stored, vae.config),
        "text_encoder": {name.removeprefix("text_model."): shape for name, shape in text.items()},
    }
    return [
        f"{part}.{name}"
        for part, network in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder))
        for name in sorted(name.removeprefix("text_model.") for name in network.state_dict())
        if there[part].get(name) is None
    ]
