"""Contact sheets of assets, each from several sides."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from config.guidance_params import TOY_PRIORS
from evaluation.scorers import Column
from evaluation.scores import ScoredRun
from evaluation.suite import Suite
from evaluation.table import short
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from utils.media import contact_sheet

AZIMUTHS = (30.0, 210.0)
"""Azimuths of the pictures: from the front and from behind."""
TILE = 128
"""Pixels of a picture's side."""
MOST_COLUMNS = 6
"""Assets in a row of a sheet."""

Cell = tuple[Gaussians | None, str, str]
"""An asset, or None for a place that stays white, and two texts above it."""


def asset_sheet(
    cells: Iterable[Cell], columns: int, config: Config, azimuths: Sequence[float] = AZIMUTHS
) -> Tensor:
    """Sheet [3, height, width]: `columns` assets in a row, each seen from all azimuths by the default camera."""
    c = config.camera
    cameras = orbit(azimuths, c.default_polar, c.default_radius, c.default_fovy, c.image_w, c.image_h)
    nothing = torch.ones(len(azimuths), 3, TILE, TILE)
    pictures, labels = [], []
    for gaussians, *lines in cells:
        pictures.append(nothing if gaussians is None else tiles(show(gaussians, cameras, white=True).rgb))
        labels += [*lines, *[""] * (len(azimuths) - len(lines))]
    return contact_sheet(torch.cat(pictures), columns=columns * len(azimuths), labels=labels, gap=2)


def tiles(images: Tensor) -> Tensor:
    """Images [V, 3, H, W] as squares of TILE pixels."""
    if images.shape[-2:] == (TILE, TILE):
        return images
    return F.interpolate(images, size=(TILE, TILE), mode="bilinear", antialias=True).clamp(0, 1)


def suite_sheet(suite: Suite, scored: Sequence[ScoredRun], columns: Sequence[Column]) -> Tensor:
    """Sheet of the first seed: prompts down, methods across, with `columns` above; of a single prompt the
    methods in rows.
    """
    assets = {(one.run.method, one.run.prompt): one for one in scored if one.run.seed == suite.seeds[0]}
    several = len(suite.prompts) > 1
    methods = [method for method in suite.methods if not (several and method in suite.absent)]
    width = min(several + len(methods), MOST_COLUMNS)

    def cells() -> Iterator[Cell]:
        for prompt in suite.prompts:
            if several:
                yield _head(suite, prompt)
            for method in methods:
                one = assets.get((method, prompt))
                if one is None:
                    yield None, method, "left out" if method in suite.absent else "not run"
                else:
                    gaussians = GaussianModel.load_ply(one.outcome.folder.asset)
                    yield gaussians, method, short(one, columns)
            yield from [(None, "", "")] * (-(several + len(methods)) % width)

    return asset_sheet(cells(), width, suite.config)


def _head(suite: Suite, prompt: str) -> Cell:
    """The cell before a prompt's assets: its true toy, or no picture."""
    if suite.config.guidance.model_key in TOY_PRIORS:
        return truth(prompt), prompt, "the true toy"
    first, *rest = textwrap.wrap(prompt, 20)
    return None, first, " ".join(rest)


def truth(prompt: str) -> Gaussians | None:
    """The toy that a prompt names, None if it names none."""
    from toybox.captions import parse
    from toybox.splats import canonical

    try:
        return canonical(parse(prompt))
    except ValueError:
        return None
