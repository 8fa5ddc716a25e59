"""Batched entry: builds and checks the scene once and hands it to the backend of its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import cpu, reference
from .scene import Gaussians, Views, check_gaussians, check_tensors, check_views, given, map_tensors

Backend = Callable[[Gaussians, Views, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]


def _on_cuda(
    gaussians: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from . import cuda  # a machine without such a device never reads it

    return cuda.rasterize(gaussians, views, anchor, values)


# By device type; any other device goes through the host. Their contract is reference.rasterize's.
BACKENDS: dict[str, Backend] = {"cpu": cpu.rasterize, "cuda": _on_cuda, "reference": reference.rasterize}


@dataclass(frozen=True)
class RasterOutput:
    """Images and statistics that rasterize returns.

    rgb [V, 3, H, W]; depth [V, 1, H, W] = sum of T alpha z in world units; alpha [V, 1, H, W] = 1 - the final
    transmittance; radii [V, N] int32: three standard deviations in pixels, 0 where a view does not see the Gaussian;
    means2d [V, N, 2]: pixel means (0 where not seen), a leaf whose .grad holds dL/d(pixel mean) after backward;
    counts [V, 6] int32: how many Gaussians a view draws, and how many it leaves out for what reason, in COUNTS' order.
    """

    rgb: Tensor
    depth: Tensor
    alpha: Tensor
    radii: Tensor
    means2d: Tensor
    counts: Tensor


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
    """Render N Gaussians into V views at once, differentiably in every Gaussian's parameters and the
    background.

    means [N, 3] and scales [N, 3] (standard deviations) in world units; rotations [N, 4] (w, x, y, z), normalised
    here; opacities [N] or [N, 1] in [0, 1]; shs [N, K, 3] with K >= (sh_degree + 1)^2, or colors [N, 3]; covariances
    [N, 6] (xx, xy, xz, yy, yz, zz) instead of scales and rotations. viewmats [V, 4, 4] map world to camera (rigid;
    x right, y down, z forward); focals and principals [V, 2] in pixels, the first pixel's centre being 0; background
    [3] or [V, 3]. scale_modifier multiplies the scales. near: Gaussians at this depth or nearer are not drawn.
    antialiasing: Mip-Splatting's 2D filter on the opacity.

    backend: "cpu", "cuda", "reference" (plain torch: any device, float64), or None for the device's own (a device without
    one goes through the host).
    Raises ValueError when a shape, a device or a choice of arguments does not fit, TypeError when something is no dense
    tensor of a floating type.
    """
    check_tensors(
        **given(scales=scales, rotations=rotations, shs=shs, colors=colors, covariances=covariances),
        means=means,
        opacities=opacities,
        viewmats=viewmats,
        focals=focals,
        principals=principals,
        background=background,
    )
    gaussians = Gaussians(means, column(opacities), scales, rotations, covariances, shs, colors)
    views = Views(
        viewmats=viewmats,
        focals=focals,
        principals=principals,
        backgrounds=background.expand(*viewmats.shape[:1], 3) if background.shape == (3,) else background,
        width=width,
        height=height,
        sh_degree=sh_degree,
        scale_modifier=scale_modifier,
        near=near,
        antialiasing=antialiasing,
    )
    chosen = choose_backend(gaussians, views, backend)
    means2d = means.new_empty(len(viewmats), len(means), 2)
    values = means2d.detach()
    parameters = (means, scales, rotations, opacities, shs, colors, covariances)
    means2d.requires_grad_(
        torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in parameters)
    )
    rgb, depth, alpha, radii, counts = chosen(gaussians, views, means2d, values)
    return RasterOutput(rgb, depth, alpha, radii, means2d, counts)


def through_host(
    gaussians: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run the CPU backend for tensors of a device that has none of its own yet: differentiable copies there
    and back.
    """
    host_values = torch.empty(values.shape)
    on_host = map_tensors(gaussians, Tensor.cpu), map_tensors(views, Tensor.cpu)
    outputs = cpu.rasterize(*on_host, anchor.cpu(), host_values)
    values.copy_(host_values)
    rgb, depth, alpha, radii, counts = (output.to(values.device) for output in outputs)
    return rgb, depth, alpha, radii, counts


def column(opacities: Tensor) -> Tensor:
    """Opacities [N] from [N] or [N, 1]."""
    return opacities.squeeze(1) if opacities.dim() == 2 and opacities.shape[1] == 1 else opacities


def choose_backend(gaussians: Gaussians, views: Views, name: str | None) -> Backend:
    """The backend of that name, or of the tensors' device. Raises ValueError if it or the arguments do not fit."""
    check_gaussians(gaussians, views.sh_degree)
    device = gaussians.means.device
    check_views(views, gaussians.means)
    if name is None:
        if device.type == "cuda" and torch.version.cuda is None:  # ROCm calls its devices so too
            return through_host
        return BACKENDS.get(device.type, through_host)
    if name not in BACKENDS:
        raise ValueError(f"backend is {name!r}, it must be one of {', '.join(sorted(BACKENDS))} or None.")
    if name in ("cpu", "cuda") and device.type != name:
        raise ValueError(
            f'backend is "{name}" and the tensors are on {device}, they must be on "{name}" for it.'
        )
    return BACKENDS[name]
