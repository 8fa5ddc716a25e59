"""Training images: toys and clutter through the project's own cameras, rasterizer and backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config import Config
from config.model_params import ModelParams
from gaussian_renderer import render
from gaussian_renderer.augment import disparity, sample_background
from gaussian_renderer.guide_pictures import depth
from gaussian_renderer.surface import surface
from scene.cameras import Cameras, ViewRange, sample
from toybox import splats
from toybox.captions import NAMES
from toybox.splats import Splats
from toybox.world import Name

Maker = Callable[[torch.Generator], Splats]
Picture = Callable[[Splats, Cameras], Tensor]
"""Pictures [V, 4, H, W] in [0, 1] of an object: premultiplied colours over black, and alpha."""


COLORED = 0.5
"""Share of the random backgrounds that are of any colour; the others are grey."""


def backgrounds(model_params: ModelParams, count: int, rng: torch.Generator) -> Tensor:
    """Colours [count, 3] of backgrounds: the training loop's, in colours and in greys alike."""
    colored, grey = (
        sample_background(model_params.model_copy(update={"bg_gray": gray}), [rng] * count)
        for gray in (False, True)
    )
    return torch.where(torch.rand(count, 1, generator=rng) < COLORED, colored, grey)


@dataclass(frozen=True)
class Renders:
    """Views of objects.

    M views: premultiplied colours over black and alpha [M, 4, H, W] uint8, name [M] (index into NAMES, -1 for
    what is no toy), azimuth and polar [M] in degrees.
    """

    rgba: np.ndarray
    name: np.ndarray
    azimuth: np.ndarray
    polar: np.ndarray

    def __len__(self) -> int:
        return len(self.name)

    def images(self, index: np.ndarray, backgrounds: Tensor) -> Tensor:
        """Views `index` [B] over `backgrounds` [B, 3]: [B, 3, H, W] in [0, 1]."""
        rgba = torch.from_numpy(self.rgba[index]).float() / 255
        return rgba[:, :3] + (1 - rgba[:, 3:]) * backgrounds[:, :, None, None]

    def draw(self, count: int, model_params: ModelParams, rng: torch.Generator) -> tuple[np.ndarray, Tensor]:
        """Random indices [count] and their images [count, 3, H, W] over random backgrounds."""
        index = torch.randint(len(self), (count,), generator=rng).numpy()
        return index, self.images(index, backgrounds(model_params, count, rng))

    @classmethod
    def joined(cls, *parts: Renders) -> Renders:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in vars(self).items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> Renders:
        """Load a set. Raises FileNotFoundError if the folder holds no finished one."""
        return cls(*(np.load(folder / f"{field.name}.npy") for field in fields(cls)))


def _views(config: Config, count: int, rng: torch.Generator, views_per_set: int) -> Cameras:
    """Cameras of the training loop; one in eight from overhead."""
    view_range = ViewRange.initial(config.camera)
    above = count // (8 * views_per_set) * views_per_set
    ranges = (
        (view_range, count - above),
        (ViewRange(view_range.radius, (8.0, 45.0), view_range.phi, view_range.fovy), above),
    )
    parts = [sample(config.camera, bounds, n, rng, views_per_set=views_per_set) for bounds, n in ranges if n]
    joined: dict[str, Any] = {
        name: torch.cat([vars(part)[name] for part in parts])
        for name, value in vars(parts[0]).items()
        if isinstance(value, Tensor)
    }
    return replace(parts[0], **joined)


def colors_of(gaussians: Splats, cameras: Cameras) -> Tensor:
    """Render an object as it is."""
    out = render(gaussians, cameras, torch.zeros(3))
    return torch.cat([out.rgb, out.alpha], dim=1)


def disparity_of(gaussians: Splats, cameras: Cameras) -> Tensor:
    """Render its disparity, which fills the picture."""
    return _opaque(disparity(render(gaussians, cameras, torch.zeros(3)), cameras).expand(-1, 3, -1, -1))


def guide_depth_of(gaussians: Splats, cameras: Cameras) -> Tensor:
    """Render what a ControlNet of depth is shown, which fills the picture."""
    return _opaque(depth(surface(gaussians, None, cameras)))


def _opaque(rgb: Tensor) -> Tensor:
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], dim=1)


def collect(
    config: Config,
    makers: list[tuple[Maker, int]],
    views_each: int,
    rng: torch.Generator,
    *,
    rounds: int = 1,
    picture: Picture = colors_of,
    label: str = "",
    views_per_set: int = 1,
) -> Renders:
    """Render `views_each` random views of every maker's object, `rounds` times, in whole sets, which are rings.

    A maker is paired with its name's index. The views follow from `rng` alone, whatever the picture.
    """
    size = config.camera.image_h, config.camera.image_w
    total = rounds * len(makers) * views_each
    rgba, name = np.empty((total, 4, *size), np.uint8), np.empty(total, np.int16)
    azimuth, polar = np.empty(total, np.float32), np.empty(total, np.float32)
    jobs: Iterator[tuple[Maker, int]] = iter(makers * rounds)
    for start in tqdm(range(0, total, views_each), desc=label, unit_scale=views_each, unit="view"):
        maker, index = next(jobs)
        cameras = _views(config, views_each, rng, views_per_set)
        here = slice(start, start + views_each)
        with torch.no_grad():
            rgba[here] = (picture(maker(rng), cameras).clamp(0, 1) * 255).round().byte().numpy()
        name[here], azimuth[here], polar[here] = index, cameras.azimuth.numpy(), cameras.polar.numpy()
    return Renders(rgba, name, azimuth, polar)


def toys(names: Sequence[Name]) -> list[tuple[Maker, int]]:
    """The canonical toys."""
    return [(lambda rng, n=name: splats.canonical(n), NAMES.index(name)) for name in names]  # type: ignore[misc]
