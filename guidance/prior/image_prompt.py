"""IP-Adapter (Ye et al., 2023) in a U-Net: attention to the tokens of a picture, beside that to the text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from guidance.prior.image_prompt_files import KEY, ImagePromptFiles
from guidance.prior.libraries import in_short, quiet_libraries
from guidance.prior.model_files import PriorError
from guidance.prior.network_files import check_finite, read_network
from guidance.prior.weight_files import TEXT_WIDTHS, contents_of, reading

FIRST = "1.to_k_ip.weight"
"""A weight that every adapter has; its rows are as long as the tokens."""

logger = logging.getLogger(__name__)


class OfTokens(nn.Module):
    """A linear layer of an adapter's attention, for tokens [..., D + 1] whose last channel is a factor for each row.

    diffusers' own attention has one factor for all rows. The values are multiplied by it here, which is the same.

    Args:
        layer: takes [..., D].
        weighed: multiply by the factor: the values are, and the keys are not.
    """

    def __init__(self, layer: nn.Module, *, weighed: bool) -> None:
        super().__init__()
        self.layer, self.weighed = layer, weighed

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [..., D'] of tokens [..., D + 1]."""
        found: Tensor = self.layer(tokens[..., :-1])
        return found * tokens[..., -1:] if self.weighed else found


def with_image(text: Tensor, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return what a U-Net with an adapter reads: texts [B, L, D], and tokens [B, T, D + 1]."""
    return text, [tokens]


@torch.no_grad()
def read_image_prompt(files: ImagePromptFiles, unet: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put an adapter into a U-Net for good, and return the tokens [1, T, D] float32 of its picture, and of no picture.

    The image encoder runs on `device` in float32, once, and is let go. The U-Net then reads `with_image` alone.

    Raises: PriorError, in one sentence, for a file that cannot be read or belongs to another U-Net or encoder.
    """
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    picture = _picture(files.picture)
    with reading(KEY, files.weights):
        weights = contents_of(files.weights)
        projecting, attending = (_below(weights, part) for part in ("image_proj.", "ip_adapter."))
        needs = _needs(projecting, attending)
    named = f"{KEY} '{files.key}'"
    reads, wanted = (int(width) for width in (attending[FIRST].shape[-1], unet.config.cross_attention_dim))
    if reads != wanted:
        raise PriorError(
            f"{named} is made for another U-Net than the prior's: its tokens have width {reads}{_whose(reads)}, and the prior "
            f"reads {wanted}{_whose(wanted)}."
        )
    with reading(KEY, files.encoder):
        encoder = _read_encoder(files.encoder)
    setting, width = needs
    made = int(getattr(encoder.config, setting))
    if made != width:
        raise PriorError(
            f"{named} reads a picture as vectors of {width} numbers, and the image encoder in {files.encoder} makes {made}: it is "
            "not the one that the adapter was trained with."
        )
    projection = _put_into(unet, projecting, attending, files.weights)
    attention = [
        each for each in unet.attn_processors.values() if isinstance(each, IPAdapterAttnProcessor2_0)
    ]
    check_finite(named, nn.ModuleList([projection, *attention]))
    check_finite(f"the image encoder in {files.encoder}", encoder)
    for each in attention:
        each.to_k_ip[0] = OfTokens(each.to_k_ip[0], weighed=False)
        each.to_v_ip[0] = OfTokens(each.to_v_ip[0], weighed=True)
    return _tokens(
        encoder.to(device), projection.to(device).float(), picture, pooled=setting == "projection_dim"
    )


def _picture(path: Path) -> Image.Image:
    """Read a picture over white, as it is to be held upright."""
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PriorError(
            f"image_prompt '{path}' is no picture that can be read ({in_short(error)})."
        ) from None
    white = Image.new("RGBA", picture.size, "white")
    found = Image.alpha_composite(white, picture).convert("RGB")
    if found.width != found.height:
        logger.warning(
            "image_prompt '%s' has %d × %d pixels: the adapter sees the square in its middle alone.",
            path, found.width, found.height,
        )  # fmt: skip
    return found


def _below(weights: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): values for name, values in weights.items() if name.startswith(start)}


def _needs(projecting: Mapping[str, Tensor], attending: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return which of an image encoder's sizes an adapter's vectors have, and that size.

    Raises: ValueError, part of a sentence, for a file of another kind.
    """
    if FIRST in attending:
        if "proj.weight" in projecting:
            return "projection_dim", projecting["proj.weight"].shape[1]
        if {"latents", "proj_in.weight"} <= set(projecting):
            return "hidden_size", projecting["proj_in.weight"].shape[1]
        if "proj.3.weight" in projecting and "proj.0.weight" in projecting:
            return "hidden_size", projecting["proj.0.weight"].shape[1]
        if {"norm.weight", "perceiver_resampler.proj_in.weight"} & set(projecting):
            raise ValueError("it is a FaceID adapter, which needs another program's numbers for a face")
    raise ValueError("it is no IP-Adapter, whose weights are called image_proj.* and ip_adapter.*")


def _read_encoder(folder: Path) -> Any:
    from transformers import CLIPVisionModelWithProjection

    return read_network(CLIPVisionModelWithProjection, folder).eval().float()


def _put_into(
    unet: Any, projecting: Mapping[str, Tensor], attending: Mapping[str, Tensor], path: Path
) -> nn.Module:
    """Load an adapter by diffusers' own reader, and take its projection, which is needed once, out of the U-Net again."""
    from diffusers.loaders import IPAdapterMixin

    loader = IPAdapterMixin()
    loader.unet = unet
    try:
        with quiet_libraries():
            loader.load_ip_adapter(
                {"image_proj": projecting, "ip_adapter": attending},
                subfolder="",
                weight_name="",
                low_cpu_mem_usage=False,
            )
    except (KeyError, RuntimeError) as error:  # names or shapes of another U-Net
        raise PriorError(f"{KEY} '{path}' is no IP-Adapter of this prior ({in_short(error)}).") from None
    projection: nn.Module = unet.encoder_hid_proj.image_projection_layers[0]
    unet.encoder_hid_proj = unet.config.encoder_hid_dim_type = None
    return projection.eval().requires_grad_(False)


def _tokens(
    encoder: Any, projection: nn.Module, picture: Image.Image, *, pooled: bool
) -> tuple[Tensor, Tensor]:
    """Return the tokens [1, T, D] of a picture, and of none, as diffusers' pipelines make them."""
    from transformers import CLIPImageProcessorPil

    size = encoder.config.image_size
    pixels = CLIPImageProcessorPil(size=size, crop_size=size)(picture, return_tensors="pt").pixel_values
    pixels = pixels.to(next(encoder.parameters()))
    if pooled:
        shown = encoder(pixels).image_embeds
        blank = torch.zeros_like(shown)
    else:
        # Of no picture, a vector for each place is that of a grey one.
        shown, blank = (
            encoder(each, output_hidden_states=True).hidden_states[-2]
            for each in (pixels, torch.zeros_like(pixels))
        )
    return projection(shown), projection(blank)


def _whose(width: int) -> str:
    return f" ({TEXT_WIDTHS[width]})" if width in TEXT_WIDTHS else ""
