"""A random MVDream of about 0.3 M parameters: in diffusers' names, in its authors' checkpoint, and as the community has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from guidance.prior.multiview_unet import grown
from tests.ldm import write_single_file
from tests.tiny_diffusers import write_index, write_tiny_folder

WIDTH, HEADS = 32, 16
"""Channels of the first level, of which its group norm makes 32 groups, and the width of a head."""
AUTHORS = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": HEADS,
    "transformer_depth": 1,
    "context_dim": 12,
    "camera_dim": 16,
}
"""Configuration of the U-Net in its authors' names."""
UNET = "model.diffusion_model."


def single_view_unet() -> Any:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=(WIDTH // HEADS, 2 * WIDTH // HEADS),
        use_linear_projection=True,
    )


def write_base(path: Path) -> Path:
    """Write a Stable Diffusion of single views, which others are made from."""
    write_tiny_folder(path)
    single_view_unet().save_pretrained(path / "unet")
    write_index(path)
    return path


def write_mvdream(base: Path, path: Path) -> Path:
    """Write a folder whose U-Net is in diffusers' names, and whose cameras count."""
    shutil.copytree(base, path)
    unet = grown(UNet2DConditionModel.from_pretrained(base, subfolder="unet"))
    torch.nn.init.normal_(unet.class_embedding.linear_2.weight, std=0.3)
    shutil.rmtree(path / "unet")
    unet.save_pretrained(path / "unet")
    return _indexed(path)


def write_checkpoint(folder: Path, path: Path) -> Path:
    """Write the networks of `folder` to a .pt in MVDream's authors' names."""
    torch.save(load_file(write_single_file(folder, path.with_suffix(".safetensors"))), path)
    path.with_suffix(".safetensors").unlink()
    return path


def write_community(folder: Path, checkpoint: Path, path: Path) -> Path:
    """Write a folder whose U-Net has the names and the configuration of its authors."""
    shutil.copytree(folder, path)
    shutil.rmtree(path / "unet")
    (path / "unet").mkdir()
    tensors = {
        name.removeprefix(UNET): values.contiguous()
        for name, values in torch.load(checkpoint, weights_only=True).items()
        if name.startswith(UNET)
    }
    save_file(tensors, path / "unet" / "diffusion_pytorch_model.safetensors")
    (path / "unet" / "config.json").write_text(json.dumps(AUTHORS))
    return _indexed(path, unet=["mv_unet", "MultiViewUNetModel"], image_encoder=[None, None])


def _indexed(path: Path, **changes: Any) -> Path:
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps({**index, "_class_name": "MVDreamPipeline", **changes}))
    return path
