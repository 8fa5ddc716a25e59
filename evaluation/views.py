"""The views of an asset that scorers look at."""

from __future__ import annotations

from torch import Tensor

from config import Config
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import show
from scene.cameras import turntable

NUM_VIEWS = 120
"""As in Consistent3D and SegmentDreamer (Sec. 5.2)."""


def views_of(gaussians: Gaussians, config: Config, count: int = NUM_VIEWS) -> Tensor:
    """[count, 3, H, W] float32 in [0, 1], on the host: once around at `default_polar` from the front on, on white."""
    c = config.camera
    around = turntable(c, count)
    return show(gaussians, around, white=True, ssaa=c.SSAA, antialiasing=config.pipeline.antialiasing).rgb
