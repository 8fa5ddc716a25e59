"""The one-page picture of a run: the prompt, its views and depths, its progress and its settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.media import Row, rows_sheet, to_float, to_uint8

TILE = 160
MARGIN = 12
LINE = 17


def report_sheet(title: str, lines: Sequence[str], rows: Sequence[Row]) -> Tensor:
    """Draw a page [3, H, W] in [0, 1]: a title, rows of named pictures [V, 3, h, w], then lines of text."""
    pictures = to_uint8(rows_sheet([row._replace(images=tiles(row.images)) for row in rows], gap=2))
    height, width = pictures.shape[:2]
    top = MARGIN + 2 * LINE
    page = Image.new(
        "RGB", (max(width, 640) + 2 * MARGIN, top + height + LINE * (1 + len(lines)) + MARGIN), "white"
    )
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(size=18))
    page.paste(Image.fromarray(pictures), (MARGIN, top))
    for index, line in enumerate(lines):
        place = (MARGIN, top + height + LINE * (1 + index))
        draw.text(place, line, fill="#222222", font=ImageFont.load_default(size=12))
    return to_float(np.array(page))


def tiles(images: Tensor) -> Tensor:
    """Scale images [V, 3, h, w] to squares of TILE pixels, [V, 3, TILE, TILE]."""
    return F.interpolate(images, size=(TILE, TILE), mode="bilinear", antialias=True).clamp(0, 1)
