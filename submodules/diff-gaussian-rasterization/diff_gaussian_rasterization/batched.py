"""The batched entry: builds and checks the scene once and hands it to the backend of its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import cpu, reference
from .scene import Gaussians, Views, check_gaussians, check_views

Held = TypeVar("Held", Gaussians, Views)
Backend = Callable[[Gaussians, Views, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]

# By device type; any other device goes through the host. Their contract is reference.rasterize's.
BACKENDS: dict[str, Backend] = {"cpu": cpu.rasterize, "reference": reference.rasterize}


@dataclass(frozen=True)
class RasterOutput:
    """What rasterize returns.

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
    """Renders N Gaussians into V views at once, differentiably in every Gaussian's parameters and the background.

    means [N, 3] and scales [N, 3] (standard deviations) in world units; rotations [N, 4] (w, x, y, z), normalised
    here; opacities [N] or [N, 1] in [0, 1]; shs [N, K, 3] with K >= (sh_degree + 1)^2, or colors [N, 3]; covariances
    [N, 6] (xx, xy, xz, yy, yz, zz) instead of scales and rotations. viewmats [V, 4, 4] map world to camera (rigid;
    x right, y down, z forward); focals and principals [V, 2] in pixels, the first pixel's centre being 0; background
    [3] or [V, 3]. scale_modifier multiplies the scales. near: Gaussians at this depth or nearer are not drawn.
    antialiasing: Mip-Splatting's 2D filter on the opacity.

    backend: "cpu", "reference" (plain torch: any device, float64, camera gradients), or None for the device's own (a device
    without one goes through the host).
    Raises ValueError when a shape, a device or a choice of arguments does not fit.
    """
    gaussians = Gaussians(means, column(opacities), scales, rotations, covariances, shs, colors)
    views = Views(
        viewmats=viewmats,
        focals=focals,
        principals=principals,
        backgrounds=background.expand(len(viewmats), 3) if background.dim() == 1 else background,
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
    """The CPU backend for tensors of a device that has none of its own yet: differentiable copies there and back."""
    host_values = torch.empty(values.shape)
    outputs = cpu.rasterize(_on_host(gaussians), _on_host(views), anchor.cpu(), host_values)
    values.copy_(host_values)
    rgb, depth, alpha, radii, counts = (output.to(values.device) for output in outputs)
    return rgb, depth, alpha, radii, counts


def _on_host(held: Held) -> Held:
    tensors: dict[str, Any] = {n: value.cpu() for n, value in vars(held).items() if isinstance(value, Tensor)}
    return replace(held, **tensors)


def column(opacities: Tensor) -> Tensor:
    """[N] from [N] or [N, 1]."""
    return opacities.squeeze(1) if opacities.dim() == 2 and opacities.shape[1] == 1 else opacities


def choose_backend(gaussians: Gaussians, views: Views, name: str | None) -> Backend:
    """The backend of that name, or of the tensors' device; ValueError if it or the arguments do not fit."""
    check_gaussians(gaussians, views.sh_degree)
    device = gaussians.means.device
    check_views(views, device)
    if name is None:
        return BACKENDS.get(device.type, through_host)
    if name not in BACKENDS:
        raise ValueError(f"backend is {name!r}, it must be one of {', '.join(sorted(BACKENDS))} or None.")
    if name == "cpu" and device.type != "cpu":
        raise ValueError(f'backend is "cpu" and the tensors are on {device}, they must be on the CPU for it.')
    return BACKENDS[name]
