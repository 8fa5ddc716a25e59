"""Names and shapes in OpenAI's checkpoints, written down from their public code alone."""

from __future__ import annotations

from typing import Literal

WIDTHS = {"base40M-textvec": 512, "base40M-imagevec": 512, "base40M-uncond": 512, "base40M": 512}
WIDTHS |= {"base300M": 1024, "base1B": 2048, "upsample": 512}
LAYERS = {name: 12 if width == 512 else 24 for name, width in WIDTHS.items()}
CLIP: dict[str, Literal["none", "vector", "grid"]] = dict.fromkeys(WIDTHS, "grid")
CLIP |= {"base40M-textvec": "vector", "base40M-imagevec": "vector", "base40M-uncond": "none"}

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def mlp(name: str, width: int) -> Shapes:
    return linear(f"{name}.c_fc", width, 4 * width) | linear(f"{name}.c_proj", 4 * width, width)


def layout(name: str) -> Shapes:
    """The state dict of a published model."""
    width = WIDTHS[name]
    shapes = mlp("time_embed", width) | layer_norm("ln_pre", width) | layer_norm("ln_post", width)
    shapes |= linear("input_proj", 6, width) | linear("output_proj", width, 12)
    for i in range(LAYERS[name]):
        block = f"backbone.resblocks.{i}"
        shapes |= linear(f"{block}.attn.c_qkv", width, 3 * width) | linear(
            f"{block}.attn.c_proj", width, width
        )
        shapes |= (
            layer_norm(f"{block}.ln_1", width)
            | mlp(f"{block}.mlp", width)
            | layer_norm(f"{block}.ln_2", width)
        )
    if CLIP[name] == "vector":
        shapes |= linear("clip_embed", 768, width)
    elif CLIP[name] == "grid":
        shapes |= layer_norm("clip_embed.0", 1024) | linear("clip_embed.1", 1024, width)
    if name == "upsample":
        shapes |= linear("cond_point_proj", 6, width) | {"channel_scales": (6,), "channel_biases": (6,)}
    return shapes
