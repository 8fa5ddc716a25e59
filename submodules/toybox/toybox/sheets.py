"""Contact sheets of assets: each from the front and from behind."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from config import Config
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import orbit
from utils.media import contact_sheet

AZIMUTHS = (30.0, 210.0)


def asset_sheet(cells: Iterable[tuple[Gaussians | None, str, str]], columns: int, config: Config) -> Tensor:
    """[3, height, width]: `columns` assets in a row, each with two lines of text; a cell without one stays white."""
    c = config.camera
    cameras = orbit(AZIMUTHS, c.default_polar, c.default_radius, c.default_fovy, c.image_w, c.image_h)
    nothing = torch.ones(len(AZIMUTHS), 3, c.image_h, c.image_w)
    pictures, labels = [], []
    for gaussians, *lines in cells:
        pictures.append(nothing if gaussians is None else show(gaussians, cameras, white=True).rgb)
        labels += lines
    return contact_sheet(torch.cat(pictures), columns=columns * len(AZIMUTHS), labels=labels, gap=2)
