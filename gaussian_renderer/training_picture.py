"""The picture of one iteration: what was rendered, what the prior makes of it, and where the gradient acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gaussian_renderer.training_views import TrainingViews
from utils.media import Row, colorize, rows_sheet

LARGEST_TILE = 256
"""Pixels: larger images are shown at this size, or a run's pictures would fill the disk."""


@torch.no_grad()
def training_picture(
    seen: TrainingViews,
    predictions: Mapping[str, Tensor],
    gradient: Tensor,
    decode: Callable[[Tensor], Tensor],
) -> Tensor:
    """One column per view and one row per kind, as a picture [3, H, W] in [0, 1].

    predictions: by name, clean latents [V, C, h, w], which `decode` makes images [V, 3, h', w'] of; gradient: [V, C, h, w]
    with respect to the latents. All rows are mirrored if the guidance saw the views mirrored.
    """
    height, width = seen.images.shape[-2:]
    shrink = min(1.0, LARGEST_TILE / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))

    def as_seen(images: Tensor) -> Tensor:
        return _resized(images.flip(-1) if seen.mirrored else images, size)

    mark = ": what the guidance sees" + (", mirrored" if seen.mirrored else "")
    rows = [
        Row(
            "Render" + ("" if seen.geometry else mark),
            as_seen(seen.out.rgb),
            [f"azimuth {angle:.0f}°" for angle in seen.cameras.azimuth.tolist()],
        ),
        Row("Disparity" + (mark if seen.geometry else ""), as_seen(seen.disparity)),
        Row("Alpha", as_seen(seen.out.alpha)),
    ]
    for name, latents in predictions.items():
        # In half precision a wild prediction may overflow on its way through the decoder; that must not end a run.
        decoded = torch.nan_to_num(decode(latents))
        rows.append(Row(f"Predicted x0 {name}", _resized(decoded, size)))
    magnitude = gradient.abs().mean(dim=1, keepdim=True)
    largest = magnitude.amax(dim=(1, 2, 3), keepdim=True)
    heat = F.interpolate(magnitude / largest.clamp_min(torch.finfo(largest.dtype).tiny), size=size)
    labels = [f"max {value:.2g}" for value in largest.flatten().tolist()]
    rows.append(Row("Gradient in the latents, mean of |g|: white is the maximum", colorize(heat), labels))
    return rows_sheet(rows)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)
