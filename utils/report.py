"""The one-page picture of a run: the prompt, its views and depths, how it came about, and its settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.media import contact_sheet

TILE = 160
MARGIN = 12
LINE = 17


def report_sheet(title: str, lines: Sequence[str], rows: Sequence[tuple[str, Tensor]]) -> Tensor:
    """A page [3, H, W] in [0, 1]: a title, rows of named pictures [V, 3, h, w], then lines of text."""
    strips = [(name, contact_sheet(_tiles(images), columns=len(images), gap=2)) for name, images in rows]
    width = max([strip.shape[-1] for _, strip in strips] + [640]) + 2 * MARGIN
    height = (
        MARGIN
        + 2 * LINE
        + sum(strip.shape[-2] + 2 * LINE for _, strip in strips)
        + LINE * len(lines)
        + MARGIN
    )
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(size=18))
    top = MARGIN + 2 * LINE
    small = ImageFont.load_default(size=12)
    for name, strip in strips:
        draw.text((MARGIN, top), name, fill="#555555", font=small)
        pixels = (strip.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        page.paste(Image.fromarray(pixels), (MARGIN, top + LINE))
        top += strip.shape[-2] + 2 * LINE
    for line in lines:
        draw.text((MARGIN, top), line, fill="#222222", font=small)
        top += LINE
    return torch.from_numpy(np.array(page)).permute(2, 0, 1).float() / 255


def _tiles(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(TILE, TILE), mode="bilinear", antialias=True).clamp(0, 1)
