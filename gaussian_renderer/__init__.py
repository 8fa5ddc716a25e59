"""Images from Gaussians and cameras: one rasterizer call for all views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diff_gaussian_rasterization import COUNTS, rasterize
from scene.cameras import Cameras

__all__ = ["COUNTS", "Gaussians", "RenderOutput", "render"]


class Gaussians(Protocol):
    """Gaussians that can be rendered: N activated ones, K = (sh_degree + 1)² harmonics per channel."""

    @property
    def sh_degree(self) -> int: ...

    @property
    def means(self) -> Tensor: ...  # [N, 3], world units

    @property
    def scales(self) -> Tensor: ...  # [N, 3], standard deviations in world units

    @property
    def rotations(self) -> Tensor: ...  # [N, 4], (w, x, y, z)

    @property
    def opacities(self) -> Tensor: ...  # [N, 1], in (0, 1)

    @property
    def shs(self) -> Tensor: ...  # [N, K, 3]


@dataclass(frozen=True)
class RenderOutput:
    """V rendered views of H × W pixels.

    rgb [V, 3, H, W] over the background; depth [V, 1, H, W] = Σ T α z in world units, not divided by alpha;
    alpha [V, 1, H, W] = 1 - final transmittance; radii [V, N] int32, the extent on the screen in pixels, 0
    where culled; counts [V, 6] int32: how many Gaussians a view draws, and how many it leaves out for what reason, in the
    order of `COUNTS`; means2d [V, N, 2], a leaf that holds the projected means in pixels and, after backward, in
    .grad the loss's gradient with respect to them.
    """

    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    radii: Tensor
    counts: Tensor
    means2d: Tensor


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    *,
    sh_degree: int | None = None,
    scale_modifier: float = 1.0,
    scales: Tensor | None = None,
    shs: Tensor | None = None,
    antialiasing: bool = False,
) -> RenderOutput:
    """Render all V views in one rasterizer call.

    background: [3] or [V, 3] in [0, 1]. `sh_degree` uses fewer harmonics than there are; `scales` [N, 3] and
    `shs` [N, K, 3] replace the model's own (augmentation); `scale_modifier` multiplies all scales;
    `antialiasing` compensates the opacity of Gaussians under a pixel in size.
    Raises ValueError for a background of another shape or a degree that the model does not have.
    """
    num_views = len(cameras)
    if background.shape not in ((3,), (num_views, 3)):
        raise ValueError(
            f"background has shape {list(background.shape)}, but it must be [3] or [{num_views}, 3]."
        )
    if sh_degree is not None and not 0 <= sh_degree <= gaussians.sh_degree:
        raise ValueError(
            f"sh_degree is {sh_degree}, but these Gaussians have degrees 0 to {gaussians.sh_degree}."
        )
    out = rasterize(
        gaussians.means,
        gaussians.scales if scales is None else scales,
        gaussians.rotations,
        gaussians.opacities,
        shs=gaussians.shs if shs is None else shs,
        viewmats=cameras.viewmats,
        focals=cameras.focals,
        principals=cameras.principals,
        width=cameras.width,
        height=cameras.height,
        background=background.to(device=gaussians.means.device, dtype=gaussians.means.dtype),
        sh_degree=gaussians.sh_degree if sh_degree is None else sh_degree,
        scale_modifier=scale_modifier,
        antialiasing=antialiasing,
    )
    return RenderOutput(
        rgb=out.rgb,
        depth=out.depth,
        alpha=out.alpha,
        radii=out.radii,
        counts=out.counts,
        means2d=out.means2d,
    )
