"""Names that the blocks of a U-Net had in the original Stable Diffusion, and have in some LoRA files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_names(unet: Any) -> dict[str, str]:
    """Return the original names of a U-Net's modules, by the names that diffusers gave them."""
    blocks = dict(_blocks(unet))
    found = {}
    for name, _ in unet.named_modules():
        block = next((block for block in blocks if name == block or name.startswith(f"{block}.")), None)
        if block is not None:
            leaf = name.removeprefix(block)
            leaf = f".{_RESNET.get(leaf[1:], leaf[1:])}" if ".resnets." in block and leaf else leaf
            found[name] = blocks[block] + leaf
    return found


def _blocks(unet: Any) -> Iterator[tuple[str, str]]:
    """Name the layers; the original counted them through, with a resampling on the way down as one of its own."""
    yield from (("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"))
    yield from (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"))
    yield from (("mid_block.resnets.0", "middle_block.0"), ("mid_block.attentions.0", "middle_block.1"))
    yield "mid_block.resnets.1", "middle_block.2"
    number = 1
    for index, block in enumerate(unet.down_blocks):
        for layer in range(len(block.resnets)):
            yield f"down_blocks.{index}.resnets.{layer}", f"input_blocks.{number}.0"
            yield f"down_blocks.{index}.attentions.{layer}", f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            yield f"down_blocks.{index}.downsamplers.0.conv", f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for index, block in enumerate(unet.up_blocks):
        for layer in range(len(block.resnets)):
            yield f"up_blocks.{index}.resnets.{layer}", f"output_blocks.{number}.0"
            yield f"up_blocks.{index}.attentions.{layer}", f"output_blocks.{number}.1"
            number += 1
        place = 2 if hasattr(block, "attentions") else 1
        yield f"up_blocks.{index}.upsamplers.0", f"output_blocks.{number - 1}.{place}"
