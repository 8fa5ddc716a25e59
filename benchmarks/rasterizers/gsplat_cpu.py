"""Run gsplat's own implementation in torch (gsplat/cuda/_torch_impl.py) on the CPU.

Its projection, compositing and everything that autograd differentiates run as they are. Three things it calls
exist in CUDA alone, and are supplied here in plain torch, from what they return:

- gsplat.rasterize_to_indices_in_range, which lists the pairs of a Gaussian and a pixel (find_pairs). gsplat's tile
  lists, which its kernel starts from, are left out: in torch they are a Python loop, 40 us for every Gaussian of a view;
- nerfacc.pack_info, which counts each pixel's pairs;
- nerfacc's exclusive product along each pixel, and its gradient.

Nobody needs to trust that these are fast: pairs that are `given` are found outside the time that is taken,
and what is done for nerfacc takes 0.7 of the 3.2 seconds that 4 views of 512 x 512 with 100,000 Gaussians
then take on 2 cores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .gsplat_cuda import intrinsics
from .peer import Images, Render
from .scene import Scene

TILE = 16
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
Pairs = tuple[Tensor, Tensor, Tensor]
"""Gaussian, pixel and image of each pair [M], by image and pixel, front to back in each."""


def prepare(scene: Scene, given: bool) -> Render:
    """The forward by gsplat's torch code. given: the pairs are found now, once, instead of in every forward."""
    import gsplat.cuda._torch_impl as impl
    import gsplat.cuda._wrapper as wrapper

    supply_nerfacc()
    g, cameras, matrices = scene.gaussians, scene.cameras, intrinsics(scene)
    size, views = (cameras["width"], cameras["height"]), len(cameras["viewmats"])
    tiles = (views, math.ceil(size[1] / TILE), math.ceil(size[0] / TILE))
    # One entry in the tile lists that nobody reads makes gsplat do all pairs in one go.
    no_offsets, no_list = torch.zeros(tiles, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)

    def project() -> tuple[Tensor, ...]:
        covariances, _ = impl._quat_scale_to_covar_preci(g["rotations"], g["scales"], compute_preci=False)
        _, means, depths, conics, _ = impl._fully_fused_projection(
            g["means"], covariances, cameras["viewmats"], matrices, *size, near_plane=cameras["near"]
        )
        return means, conics, g["opacities"].expand(views, -1), depths

    def pairs_of(means: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor) -> Pairs:
        return find_pairs(means, conics, opacities, depths, *size, cameras["near"])

    with torch.no_grad():
        found = pairs_of(*project()) if given else None

    def render() -> Images:
        projected = project()
        wrapper.rasterize_to_indices_in_range = lambda *_: found or pairs_of(*projected)
        means, conics, opacities, depths = projected
        channels = torch.cat([g["colors"].expand(views, -1, -1), depths[..., None]], dim=-1)
        background = torch.nn.functional.pad(cameras["background"], (0, 1))
        image, alpha = impl._rasterize_to_pixels(
            means, conics, channels, opacities, *size, TILE, no_offsets, no_list, background
        )
        image = image.movedim(-1, 1)
        return image[:, :3], image[:, 3:], alpha.movedim(-1, 1)

    return render


@torch.no_grad()
def find_pairs(
    means: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, width: int, height: int, near: float
) -> Pairs:
    """Pairs that gsplat composites: alpha >= 1/255, until a pixel's transmittance would fall to 1e-4.

    means [V, N, 2], conics [V, N, 3], opacities and depths [V, N].
    """
    found = []
    for image, view in enumerate(zip(means, conics, opacities, depths)):
        ids, pixels = view_pairs(*view, width, height, near)
        found.append((ids, pixels, torch.full_like(ids, image)))
    gaussians, pixels, images = (torch.cat(column) for column in zip(*found))
    return gaussians, pixels, images


def view_pairs(
    means: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, width: int, height: int, near: float
) -> tuple[Tensor, Tensor]:
    """Gaussian and pixel of each pair of one image."""
    order = depths.argsort(stable=True)
    order = order[(depths[order] > near) & (opacities[order] >= MIN_ALPHA)]
    mean, conic, opacity = means[order] - 0.5, conics[order], opacities[order]

    # Every pixel of the box around alpha >= 1/255.
    determinant = conic[:, 0] * conic[:, 2] - conic[:, 1] ** 2
    variance = conic[:, [2, 0]] / determinant[:, None]
    reach = (2 * (opacity / MIN_ALPHA).log()[:, None] * variance).sqrt()
    last = torch.tensor([width - 1, height - 1])
    low = (mean - reach).ceil().long().clamp(min=0)
    high = torch.minimum((mean + reach).floor().long(), last)
    extent = (high - low + 1).clamp(min=0)
    counts = extent.prod(dim=1)
    ids = torch.repeat_interleave(counts)
    offsets = torch.arange(len(ids)) - (counts.cumsum(0) - counts)[ids]
    x = low[ids, 0] + offsets % extent[ids, 0]
    y = low[ids, 1] + offsets // extent[ids, 0]

    dx, dy = x - mean[ids, 0], y - mean[ids, 1]
    a, b, c = conic[ids].unbind(-1)
    alpha = (opacity[ids] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp(max=0.999)
    taken = (alpha >= MIN_ALPHA).nonzero().squeeze(1)
    pixels, by_pixel = (y * width + x)[taken].sort(stable=True)
    taken = taken[by_pixel]

    starts, counts = pack(pixels, width * height)
    left = 1 - alpha[taken]
    kept = exclusive_product(starts, counts, left) * left > MIN_TRANSMITTANCE
    return order[ids[taken[kept]]], pixels[kept]


def pack(indices: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Start of the run of each of 0 .. number - 1 in sorted indices [M], and its length."""
    counts = torch.bincount(indices, minlength=number)
    return counts.cumsum(0) - counts, counts


def exclusive_product(starts: Tensor, counts: Tensor, factors: Tensor) -> Tensor:
    """Product [M], for each factor, of those before it in its run. Factors are positive."""
    logs = factors.double().log()
    before = logs.cumsum(0) - logs
    first = torch.repeat_interleave(starts, counts)
    return (before - before[first]).exp().to(factors)


def exclusive_product_backward(
    starts: Tensor, counts: Tensor, factors: Tensor, products: Tensor, upstream: Tensor
) -> Tensor:
    """Gradient of the factors, d(sum of products times upstream) / d(factors): for each, over those after it
    in its run.
    """
    sums = (products * upstream).double().cumsum(0)
    last = torch.repeat_interleave(starts + counts - 1, counts)
    return ((sums[last] - sums) / factors).to(factors)


def supply_nerfacc() -> None:
    """Put the two functions above where nerfacc looks for its CUDA ones."""
    import nerfacc.cuda
    import nerfacc.volrend

    def pack_info(indices: Tensor, number: int) -> Tensor:
        return torch.stack(pack(indices, number), dim=-1)

    nerfacc.volrend.pack_info = pack_info
    nerfacc.cuda.exclusive_prod_forward = exclusive_product
    nerfacc.cuda.exclusive_prod_backward = exclusive_product_backward
