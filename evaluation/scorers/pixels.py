"""Images as CLIP's networks see them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from guidance.prior.clip import normalized


def clip_pixels(images: Tensor, size: int) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] → [B, 3, size, size], normalised as CLIP's and BLIP's training had them.

    Their Pillow pipeline on 8-bit images is repeated: bicubic to `size` along the shorter side, rounded to 8
    bits, the middle cut out.
    """
    height, width = images.shape[-2:]
    scaled = [size * side // min(height, width) for side in (height, width)]
    levels = (images.clamp(0, 1) * 255).round()
    # First the rows, then the columns, as Pillow does, which rounds and clips in between.
    for shape in ([height, scaled[1]], scaled):
        if shape != list(levels.shape[-2:]):
            levels = F.interpolate(levels, size=shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    top, left = ((side - size) // 2 for side in scaled)
    return normalized(levels[:, :, top : top + size, left : left + size] / 255)
