"""Contact sheets of assets, each from several sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from config import Config
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import orbit
from utils.media import contact_sheet

AZIMUTHS = (30.0, 210.0)
"""From the front and from behind."""


def asset_sheet(
    cells: Iterable[tuple[Gaussians | None, str, str]],
    columns: int,
    config: Config,
    azimuths: Sequence[float] = AZIMUTHS,
) -> Tensor:
    """[3, height, width]: `columns` assets in a row, each with two texts above; a cell without one stays white."""
    c = config.camera
    cameras = orbit(azimuths, c.default_polar, c.default_radius, c.default_fovy, c.image_w, c.image_h)
    nothing = torch.ones(len(azimuths), 3, c.image_h, c.image_w)
    pictures, labels = [], []
    for gaussians, *lines in cells:
        pictures.append(nothing if gaussians is None else show(gaussians, cameras, white=True).rgb)
        labels += [*lines, *[""] * (len(azimuths) - len(lines))]
    return contact_sheet(torch.cat(pictures), columns=columns * len(azimuths), labels=labels, gap=2)
