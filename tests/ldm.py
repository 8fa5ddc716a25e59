"""A diffusers folder as one file in the layout of the original Stable Diffusion 1 (CompVis's names)."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_MID = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.1": "mid.block_2",
}
VAE_LEAVES = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
}


def write_single_file(folder: Path, path: Path) -> Path:
    """Write the networks of `folder` to one .safetensors file."""
    merged: dict[str, Tensor] = {}
    for name, values in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        merged[f"model.diffusion_model.{unet_name(name, _layers(folder))}"] = values
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    for name, values in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        # Attention was made of convolutions of one pixel.
        square = ".attentions." in name and values.ndim == 2
        merged[f"first_stage_model.{vae_name(name, levels)}"] = values[:, :, None, None] if square else values
    for name, values in load_file(folder / "text_encoder" / "model.safetensors").items():
        merged[f"cond_stage_model.transformer.text_model.{name}"] = values
    save_file({name: values.contiguous() for name, values in merged.items()}, path)
    return path


def _layers(folder: Path) -> int:
    return int(json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"])


def unet_name(name: str, layers: int) -> str:
    """Blocks are numbered through, a resampling counting as one on the way down."""
    for ours, theirs in UNET.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, index, rest = match.groups()
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{rest if place == 1 else _leaf(rest, RESNET)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert match, name
    way, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if way == "down":
        number = 1 + block * (layers + 1) + layer
        if kind == "downsamplers":
            return f"input_blocks.{number + layers}.0.{rest.replace('conv', 'op', 1)}"
        return _block("input_blocks", number, kind, rest)
    number = block * (layers + 1) + layer
    if kind == "upsamplers":
        # After the block's last resnet and, in this network's first block, its attention.
        return f"output_blocks.{number + layers}.2.{rest}"
    return _block("output_blocks", number, kind, rest)


def _block(group: str, number: int, kind: str, rest: str) -> str:
    if kind == "attentions":
        return f"{group}.{number}.1.{rest}"
    return f"{group}.{number}.0.{_leaf(rest, RESNET)}"


def vae_name(name: str, levels: int) -> str:
    for ours, theirs in VAE_MID.items():
        name = name.replace(ours, theirs)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.search(r"up_blocks\.(\d+)", name)
    if up:
        # The decoder's levels were counted from the pixels.
        level = levels - 1 - int(up[1])
        name = re.sub(r"up_blocks\.\d+\.resnets\.(\d+)", rf"up.{level}.block.\1", name)
        name = re.sub(r"up_blocks\.\d+\.upsamplers\.0", f"up.{level}.upsample", name)
    return _leaf(name, VAE_LEAVES)


def _leaf(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\g<1>{theirs}.", name)
    return name
