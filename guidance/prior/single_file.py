"""Weight names in a single file, compared with those that a Stable Diffusion needs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from guidance.prior.model_files import SingleFile


def missing_weights(file: SingleFile) -> list[str]:
    """Names, "network.weight", of the weights that the base's networks have and the file has not.

    Diffusers, which reads the file, would leave them random. Only names and shapes are looked at: from the file
    only its header is read, and the networks are made without memory.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils as ldm
    from transformers import CLIPTextConfig, CLIPTextModel

    stored = _shapes(file.path)
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


def _shapes(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, without their contents."""
    with safe_open(path, framework="pt") as tensors:
        names = tensors.keys()
        return {name: torch.empty(tensors.get_slice(name).get_shape(), device="meta") for name in names}
