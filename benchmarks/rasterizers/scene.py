"""Scenes of the benchmark: the same numbers for the same arguments, on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diff_gaussian_rasterization import reference
from diff_gaussian_rasterization.scene import Gaussians, Views

NEAR = 0.2
SAMPLE = 20_000
"""Number of Gaussians that are enough to choose the scale by."""


@dataclass(frozen=True)
class Scene:
    """Arguments of rasterize, and the gradients of its images rgb, depth and alpha to send back."""

    gaussians: dict[str, Any]  # tensors
    cameras: dict[str, Any]
    upstream: tuple[Tensor, ...]

    @property
    def leaves(self) -> list[Tensor]:
        """Tensors whose gradients are computed."""
        return list(self.gaussians.values())

    def views(self) -> Views:
        """The cameras as the backends take them."""
        own = {name: value for name, value in self.cameras.items() if name != "background"}
        return Views(
            **own, backgrounds=self.cameras["background"], sh_degree=0, scale_modifier=1.0, antialiasing=False
        )


def make_scene(count: int, views: int, size: int, footprint: float, device: str, seed: int = 0) -> Scene:
    """Gaussians spread evenly over a cube of side 2, cameras around it at distance 4.

    The focal length is 1.2 image sides, opacities are even in 0 .. 0.99 (the ceiling that alpha has in some
    rasterizers, and 0.999 in gsplat, is never met), axes log-normal (sigma 0.4) and of random orientation, colors
    plain. One factor on all scales makes a Gaussian cover `footprint` pixels on average: the area
    2 pi ln(255 o) sqrt(det Sigma') in which its alpha reaches 1/255. Every image gets a random gradient.
    """
    rng = torch.Generator().manual_seed(seed)
    gaussians: dict[str, Tensor] = {
        "means": 2 * torch.rand(count, 3, generator=rng) - 1,
        "scales": torch.exp(0.4 * torch.randn(count, 3, generator=rng)),
        "rotations": torch.randn(count, 4, generator=rng),
        "opacities": 0.99 * torch.rand(count, generator=rng),
        "colors": torch.rand(count, 3, generator=rng),
    }
    viewmats = torch.eye(4).repeat(views, 1, 1)
    for view in range(views):
        angle = 2 * math.pi * view / views
        c, s = math.cos(angle), math.sin(angle)
        viewmats[view, :3] = torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 4]])
    cameras = {
        "viewmats": viewmats,
        "focals": torch.full((views, 2), 1.2 * size),
        "principals": torch.full((views, 2), (size - 1) / 2),
        "width": size,
        "height": size,
        "background": torch.ones(views, 3),
        "near": NEAR,
    }
    upstream = tuple(torch.randn(views, channels, size, size, generator=rng) for channels in (3, 1, 1))
    scene = Scene(gaussians, cameras, upstream)
    gaussians["scales"] *= scale_for(footprint, scene)
    return to_device(scene, device)


def to_device(scene: Scene, device: str) -> Scene:
    """A copy on the device, whose Gaussians are leaves that want gradients."""
    return Scene(
        {name: t.detach().to(device, copy=True).requires_grad_() for name, t in scene.gaussians.items()},
        {name: t.to(device) if isinstance(t, Tensor) else t for name, t in scene.cameras.items()},
        tuple(t.to(device) for t in scene.upstream),
    )


def mean_footprint(scene: Scene, factor: float) -> float:
    """Pixels of the first view where a Gaussian's alpha reaches 1/255, on average, with all scales times `factor`."""
    some = {name: t.detach()[:SAMPLE] for name, t in scene.gaussians.items()}
    some["scales"] = some["scales"] * factor
    p = reference.project(Gaussians(**some, covariances=None, shs=None), scene.views(), 0)
    logs = (255 * p.opacities).log()
    areas = 2 * math.pi * logs * reference.determinant(p.covariances).sqrt()
    return areas[logs > 0].mean().item()


def scale_for(footprint: float, scene: Scene) -> float:
    """The factor on all scales that gives this mean footprint, by bisection of its logarithm."""
    low, high = math.log(1e-6), math.log(1e2)
    for _ in range(40):
        middle = (low + high) / 2
        if mean_footprint(scene, math.exp(middle)) < footprint:
            low = middle
        else:
            high = middle
    return math.exp(low)
