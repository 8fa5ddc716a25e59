"""Picture for a browser: some of the Gaussians, from one camera, as colour, depth or alpha."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from gaussian_renderer import Gaussians, render
from gaussian_renderer.activated import Activated
from scene.cameras import Cameras
from utils.media import depth_image, to_uint8

KINDS = ("colour", "depth", "alpha")


@dataclass(frozen=True)
class Look:
    """Settings of a picture.

    kind: one of KINDS; background: RGB in [0, 1], of the colour; sh_degree: of the harmonics in use; size:
    factor on all scales; least_opacity: fainter Gaussians are left out; largest: share of all Gaussians that
    stays when the largest ones are left out.
    """

    kind: str = "colour"
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sh_degree: int = 0
    size: float = 1.0
    least_opacity: float = 0.0
    largest: float = 1.0


@torch.no_grad()
def filtered(gaussians: Gaussians, look: Look) -> Activated:
    """The Gaussians that a look leaves, in their order."""
    keep = gaussians.opacities[:, 0] >= look.least_opacity
    size = gaussians.scales.amax(dim=1)
    if look.largest < 1 and len(size):
        rank = torch.empty_like(size, dtype=torch.long)
        rank[size.argsort()] = torch.arange(len(size), device=size.device)
        keep &= rank < look.largest * len(size)
    return Activated.of(gaussians, keep)


@torch.no_grad()
def picture(gaussians: Gaussians, cameras: Cameras, look: Look) -> np.ndarray:
    """The view of one camera, uint8 [H, W, 3]. `look`'s filters are `filtered`'s affair."""
    device = gaussians.means.device
    out = render(
        gaussians,
        cameras.to(device),
        torch.tensor(look.background, device=device),
        sh_degree=look.sh_degree,
        scale_modifier=look.size,
    )
    if look.kind == "depth":
        return to_uint8(depth_image(out.depth, out.alpha)[0])
    return to_uint8(out.alpha[0] if look.kind == "alpha" else out.rgb[0])
