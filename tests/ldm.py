"""A diffusers folder as one file in the layout of the original Stable Diffusion 1 and 2 (CompVis's and OpenCLIP's names)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
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
    # A multi-view network's cameras, where others have classes.
    "class_embedding.linear_1": "camera_embed.0",
    "class_embedding.linear_2": "camera_embed.2",
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
CLIP, OPENCLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
OPENCLIP_NAMES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def write_single_file(folder: Path, path: Path) -> Path:
    """Write the networks of `folder` to one .safetensors file, with what published files hold beside them."""
    merged: dict[str, Tensor] = {name: torch.zeros(1000) for name in ("betas", "alphas_cumprod")}
    merged["model_ema.decay"] = torch.tensor(0.9999)
    config = json.loads((folder / "unet" / "config.json").read_text())
    layers = int(config["layers_per_block"])
    attended = ["Attn" in kind for kind in config["up_block_types"]]
    for name, values in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        merged[f"model.diffusion_model.{unet_name(name, layers, attended)}"] = values
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    for name, values in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        # Attention was made of convolutions of one pixel.
        square = ".attentions." in name and values.ndim == 2
        merged[f"first_stage_model.{vae_name(name, levels)}"] = values[:, :, None, None] if square else values
    merged |= text_tensors(
        load_file(folder / "text_encoder" / "model.safetensors"), openclip=config["use_linear_projection"]
    )
    save_file({name: values.contiguous() for name, values in merged.items()}, path)
    return path


def text_tensors(tensors: dict[str, Tensor], *, openclip: bool) -> dict[str, Tensor]:
    """Tensors of a text encoder of CLIP (SD 1) or OpenCLIP (SD 2), whose last layer and projection are unused."""
    width = tensors["final_layer_norm.weight"].shape[0]
    if not openclip:
        places = tensors["embeddings.position_embedding.weight"].shape[0]
        extra = {f"{CLIP}embeddings.position_ids": torch.arange(places)[None]}
        return {f"{CLIP}{name}": values for name, values in tensors.items()} | extra
    renamed: dict[str, Tensor] = {}
    layers = 1 + max(
        int(match[1]) for name in tensors if (match := re.match(r"encoder\.layers\.(\d+)", name))
    )
    for name, values in tensors.items():
        for ours, theirs in OPENCLIP_NAMES.items():
            name = name.replace(ours, theirs)
        # Query, key and value are one matrix.
        if match := re.fullmatch(r"(.*attn)\.q_proj\.(weight|bias)", name):
            of = [tensors[_unfused(match[1], part, match[2])] for part in "qkv"]
            renamed[f"{OPENCLIP}{match[1]}.in_proj_{match[2]}"] = torch.cat(of)
        elif not re.search(r"attn\.[kv]_proj", name):
            renamed[f"{OPENCLIP}{name}"] = values
    unused = {
        name.replace(".resblocks.0.", f".resblocks.{layers}."): torch.zeros_like(values)
        for name, values in renamed.items()
        if ".resblocks.0." in name
    }
    extra = {"text_projection": torch.zeros(width, width), "logit_scale": torch.tensor(4.6)}
    return renamed | unused | {f"{OPENCLIP}{name}": values for name, values in extra.items()}


def _unfused(attention: str, part: str, kind: str) -> str:
    layer = re.sub(r"\D", "", attention)
    return f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}"


def unet_name(name: str, layers: int, attended: list[bool]) -> str:
    """Return the original name of a U-Net's tensor. Blocks are numbered through; a resampling on the way down is one.

    Args:
        attended: True for the blocks on the way up that have attention.
    """
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
        # After the block's last resnet and, where there is one, its attention.
        return f"output_blocks.{number + layers}.{2 if attended[block] else 1}.{rest}"
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
