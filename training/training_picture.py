"""The picture of one iteration: the render, the prior's predictions, and where the gradient acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gaussian_renderer.training_views import TrainingViews
from utils.media import Pixels, Row, colorize, rows_sheet, to_pixels

LARGEST_TILE = 256
"""Largest side of a tile in pixels: larger images are shrunk to it, or a run's pictures would fill the disk."""


@dataclass(frozen=True)
class TrainingPicture:
    """Rows of V pictures by title, on their device.

    The first row is labelled with azimuths [V], in degrees, the last one with the largest gradients [V].
    """

    rows: Mapping[str, Pixels]
    azimuths: Tensor
    largest: Tensor

    @property
    def nbytes(self) -> int:
        return sum(pixels.nbytes for pixels in self.rows.values())

    def sheet(self) -> Tensor:
        """Draw a column per view and a row per kind: [3, H, W] in [0, 1]. Waits for the device."""
        rows = [Row(title, pixels.on_host()) for title, pixels in self.rows.items()]
        rows[0] = rows[0]._replace(labels=[f"azimuth {angle:.0f}°" for angle in self.azimuths.tolist()])
        rows[-1] = rows[-1]._replace(labels=[f"max {value:.2g}" for value in self.largest.tolist()])
        return rows_sheet(rows)


@torch.no_grad()
def training_picture(
    seen: TrainingViews,
    predictions: Mapping[str, Callable[[], Tensor]],
    gradient: Tensor,
    decode: Callable[[Tensor], Tensor],
) -> TrainingPicture:
    """Make the picture of V views and of the guidance's answers, without waiting for their device.

    predictions: by name, functions that return clean latents [V, C, h, w], or [V / n, n, C, h, w] of sets of n views,
    which `decode` makes images [V, 3, h', w'] of; gradient: shaped like them. All rows are mirrored if the guidance saw
    the views mirrored.
    """
    height, width = seen.images.shape[-2:]
    shrink = min(1.0, LARGEST_TILE / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))

    def as_seen(images: Tensor) -> Tensor:
        return _resized(images.flip(-1) if seen.mirrored else images, size)

    mark = ": what the guidance sees" + (", mirrored" if seen.mirrored else "")
    rows = {
        "Render" + ("" if seen.geometry else mark): as_seen(seen.out.rgb),
        "Disparity" + (mark if seen.geometry else ""): as_seen(seen.disparity),
        "Alpha": as_seen(seen.out.alpha),
    }
    rows |= {title: _resized(images, size) for title, images in seen.guide.items()}
    for name, latents in predictions.items():
        # In half precision a wild prediction may overflow on its way through the decoder; that must not end a run.
        rows[f"Predicted x0 {name}"] = _resized(torch.nan_to_num(decode(latents())), size)
    magnitude = gradient.flatten(0, -4).abs().mean(dim=1, keepdim=True)
    largest = magnitude.amax(dim=(1, 2, 3), keepdim=True)
    heat = F.interpolate(magnitude / largest.clamp_min(torch.finfo(largest.dtype).tiny), size=size)
    rows["Gradient in the latents, mean of |g|: white is the maximum"] = colorize(heat)
    return TrainingPicture(
        {title: to_pixels(images) for title, images in rows.items()},
        seen.cameras.azimuth,
        largest.flatten(),
    )


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
