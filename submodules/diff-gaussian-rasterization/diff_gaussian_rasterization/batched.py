"""The batched entry: checks its arguments once and hands them to the backend of the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import cpu, reference
from .scene import Gaussians, Views, check_gaussians, check_views

BACKENDS = {"cpu": cpu.rasterize, "reference": reference.rasterize}


@dataclass(frozen=True)
class RasterOutput:
    """What rasterize returns.

    rgb [V, 3, H, W]; depth [V, 1, H, W] = sum of T alpha z in world units; alpha [V, 1, H, W] = 1 - final transmittance;
    radii [V, N] int32: three standard deviations in pixels, 0 where a view does not see the Gaussian;
    means2d [V, N, 2]: pixel means (0 where not seen), a leaf whose .grad holds dL/d(pixel mean) after backward;
    nonfinite: the number of Gaussians left out because a parameter was NaN or infinite.
    """

    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    radii: Tensor
    means2d: Tensor
    nonfinite: int


def rasterize(
    means: Tensor,
    scales: Tensor | None,
    rotations: Tensor | None,
    opacities: Tensor,
    *,
    shs: Tensor | None = None,
    colors: Tensor | None = None,
    covariances: Tensor | None = None,
    viewmats: Tensor,
    focals: Tensor,
    principals: Tensor,
    width: int,
    height: int,
    background: Tensor,
    sh_degree: int = 0,
    scale_modifier: float = 1.0,
    near: float = 0.2,
    antialiasing: bool = False,
    backend: str | None = None,
) -> RasterOutput:
    """Renders N Gaussians into V views at once, differentiably in every Gaussian parameter and the background.

    means [N, 3], scales [N, 3] (standard deviations), in world units; rotations [N, 4] (w, x, y, z), normalised here;
    opacities [N] or [N, 1] in [0, 1]; shs [N, K, 3] with K >= (sh_degree + 1)^2, or colors [N, 3]; covariances [N, 6]
    (xx, xy, xz, yy, yz, zz) instead of scales and rotations. viewmats [V, 4, 4] map world to camera (x right, y down,
    z forward; rigid); focals and principals [V, 2] in pixels, the first pixel's centre being 0; background [3] or [V, 3].
    near: Gaussians at this depth or nearer are not drawn. antialiasing: Mip-Splatting's 2D filter on the opacity.

    backend: "cpu", "reference" (plain torch: any device, float64, camera gradients), or None for the device's own.
    Raises ValueError when a shape, a device or a choice of arguments does not fit.
    """
    gaussians = Gaussians(
        means,
        opacities.squeeze(-1) if opacities.dim() == 2 else opacities,
        scales,
        rotations,
        covariances,
        shs,
        colors,
    )
    backgrounds = background.expand(viewmats.shape[0], 3) if background.dim() == 1 else background
    views = Views(
        viewmats,
        focals,
        principals,
        backgrounds,
        width,
        height,
        sh_degree,
        scale_modifier,
        near,
        antialiasing,
    )
    parameters = (means, scales, rotations, opacities, shs, colors, covariances)
    differentiable = torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in parameters)
    check_gaussians(gaussians, sh_degree)
    means2d = means.new_empty(viewmats.shape[0], means.shape[0], 2)
    values = means2d.detach()
    means2d.requires_grad_(differentiable)
    rgb, depth, alpha, radii, nonfinite = dispatch(gaussians, views, means2d, values, backend)
    return RasterOutput(rgb, depth, alpha, radii, means2d, nonfinite)


def dispatch(
    gaussians: Gaussians, views: Views, anchor: Tensor, values: Tensor, backend: str | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Checks the arguments and calls the backend; its contract is reference.rasterize's."""
    check_gaussians(gaussians, views.sh_degree)
    device = gaussians.means.device
    check_views(views, device)
    if backend is None:
        backend = device.type if device.type in BACKENDS else "reference"
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, it must be one of {', '.join(sorted(BACKENDS))} or None.")
    if backend == "cpu" and device.type != "cpu":
        raise ValueError(f'backend "cpu" needs tensors on the CPU, these are on {device}.')
    return BACKENDS[backend](gaussians, views, anchor, values)
