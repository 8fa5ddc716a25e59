"""Definition of what the rasterizer computes, in plain torch, on any device and in any floating type.

EWA splatting (Zwicker et al. 2001) as in 3D Gaussian Splatting (Kerbl et al. 2023, section 4 and appendix A);
the equation numbers are of the latter. Every backend is held against this file, forward and backward; the
backward here is autograd's.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .scene import COUNTS, Gaussians, Views, map_tensors

DILATION = 0.3  # px^2, added to both variances of the projected covariance
MAX_ALPHA = 0.99
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
MAX_DEPTH = 1e15  # world units; the gradients of what is farther would overflow float32
TILE = 16  # pixels; saves memory and changes nothing


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics [N, (degree+1)^2] of unit vectors [N, 3], degree <= 3, with the signs of 3DGS
    files.
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.5 / math.sqrt(math.pi))]
    if degree >= 1:
        c1 = math.sqrt(3 / (4 * math.pi))
        basis += [-c1 * y, c1 * z, -c1 * x]
    if degree >= 2:
        c2 = math.sqrt(15 / (4 * math.pi))
        basis += [c2 * x * y, -c2 * y * z, c2 / math.sqrt(12) * (2 * z * z - x * x - y * y)]
        basis += [-c2 * x * z, c2 / 2 * (x * x - y * y)]
    if degree >= 3:
        c33, c32 = math.sqrt(35 / (32 * math.pi)), math.sqrt(105 / (16 * math.pi))
        c31, c30 = math.sqrt(21 / (32 * math.pi)), math.sqrt(7 / (16 * math.pi))
        basis += [-c33 * y * (3 * x * x - y * y), 2 * c32 * x * y * z, -c31 * y * (4 * z * z - x * x - y * y)]
        basis += [c30 * z * (2 * z * z - 3 * x * x - 3 * y * y), -c31 * x * (4 * z * z - x * x - y * y)]
        basis += [c32 * z * (x * x - y * y), -c33 * x * (x * x - 3 * y * y)]
    return torch.stack(basis, dim=-1)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of quaternions [N, 4] (w, x, y, z) of any length but 0."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    entries = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    entries += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    entries += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def covariance_matrices(g: Gaussians, scale_modifier: float) -> Tensor:
    """Covariances [N, 3, 3]: Sigma = R S S^T R^T (Eq. 6), or the given ones."""
    if g.covariances is not None:
        return g.covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))
    assert g.scales is not None
    assert g.rotations is not None
    factor = rotation_matrices(g.rotations) * (g.scales * scale_modifier)[:, None, :]
    return factor @ factor.mT


@dataclass(frozen=True)
class Projected:
    """Gaussians in one image.

    means [N, 2] (pixels), depths [N] (world units), covariances [N, 3] (xx, xy, yy in px^2), opacities [N],
    colors [N, 3].
    """

    means: Tensor
    depths: Tensor
    covariances: Tensor
    opacities: Tensor
    colors: Tensor

    def __getitem__(self, index: Tensor) -> Projected:
        return Projected(*(getattr(self, f.name)[index] for f in fields(self)))


def project(g: Gaussians, views: Views, view: int) -> Projected:
    """Project by Eq. 5 with the Jacobian of the perspective division, |x/z| and |y/z| clamped to 1.3
    tan(fov/2) in it.
    """
    rotation, translation = views.viewmats[view, :3, :3], views.viewmats[view, :3, 3]
    focal = views.focals[view]
    cam = g.means @ rotation.T + translation
    z = cam[:, 2]
    ratio = cam[:, :2] / z[:, None]
    means = focal * ratio + views.principals[view]

    limit = 1.3 * torch.tensor([views.width, views.height]).to(focal) / (2 * focal)
    u, v = torch.maximum(torch.minimum(ratio, limit), -limit).unbind(-1)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [focal[0] / z, zero, -focal[0] * u / z, zero, focal[1] / z, -focal[1] * v / z], dim=-1
    )
    to_image = jacobian.unflatten(-1, (2, 3)) @ rotation
    sharp = to_image @ covariance_matrices(g, views.scale_modifier) @ to_image.mT
    sharp = torch.stack([sharp[:, 0, 0], sharp[:, 0, 1], sharp[:, 1, 1]], dim=-1)
    covariances = sharp + torch.tensor([DILATION, 0.0, DILATION]).to(sharp)

    opacities = g.opacities
    if views.antialiasing:  # Mip-Splatting (Yu et al. 2024), 2D filter
        opacities = opacities * (determinant(sharp) / determinant(covariances)).clamp(min=0).sqrt()
    return Projected(means, z, covariances, opacities, view_colors(g, views, rotation, translation))


def determinant(covariances: Tensor) -> Tensor:
    """Determinants [N] of covariances [N, 3] (xx, xy, yy)."""
    xx, xy, yy = covariances.unbind(-1)
    return xx * yy - xy * xy


def view_colors(g: Gaussians, views: Views, rotation: Tensor, translation: Tensor) -> Tensor:
    """Colors [N, 3]: the given ones, or the harmonics seen from the camera, plus 0.5, not below 0."""
    if g.colors is not None:
        return g.colors
    assert g.shs is not None
    offsets = g.means + rotation.T @ translation  # the camera sits at -R^T t
    basis = sh_basis(offsets / offsets.norm(dim=-1, keepdim=True), views.sh_degree)
    return ((basis[:, :, None] * g.shs[:, : basis.shape[1]]).sum(1) + 0.5).clamp(min=0)


def finite(g: Gaussians, sh_degree: int) -> Tensor:
    """Mask [N] of Gaussians whose every parameter that takes part is finite, and the square of the rotation's
    length too, and not 0.
    """
    used = replace(g, shs=None if g.shs is None else g.shs[:, : (sh_degree + 1) ** 2])
    ok = torch.ones(len(g.means), dtype=torch.bool, device=g.means.device)
    for tensor in vars(used).values():
        if tensor is not None:
            ok &= tensor.isfinite().reshape(len(ok), math.prod(tensor.shape[1:])).all(dim=1)
    if g.rotations is not None:
        squares = g.rotations.square().sum(dim=1)
        ok &= squares.isfinite() & (squares >= torch.finfo(squares.dtype).tiny)
    return ok


def reach(p: Projected) -> Tensor:
    """Half-widths [N, 2] in pixels of the box around alpha >= 1/255; negative where the opacity is below it."""
    log_ratio = (p.opacities / MIN_ALPHA).log()
    half_widths = (2 * log_ratio.clamp(min=0)[:, None] * p.covariances[:, [0, 2]]).sqrt()
    return torch.where(log_ratio[:, None] >= 0, half_widths, -1.0)


def fates_of(p: Projected, views: Views) -> Tensor:
    """Fates [N] int of the Gaussians, as an index into COUNTS (never "nonfinite": those were left out before)."""
    det = determinant(p.covariances)
    extent = reach(p)
    low, high = (p.means - extent).ceil(), (p.means + extent).floor()
    last = torch.tensor([views.width - 1, views.height - 1]).to(p.means)
    reasons = {
        "behind": ~(p.depths > views.near),
        # Finite harmonics may add up to an infinite colour.
        "degenerate": ~((det > 0) & det.isfinite() & (p.depths < MAX_DEPTH) & p.colors.isfinite().all(dim=1)),
        "faint": (extent < 0).any(dim=1),
        "outside": ~(low.clamp(min=0) <= torch.minimum(high, last)).all(dim=1),
    }
    fates = torch.zeros_like(det, dtype=torch.long)
    for reason, holds in reversed(reasons.items()):
        fates = torch.where(holds, COUNTS.index(reason), fates)
    return fates


def radii_of(p: Projected) -> Tensor:
    """Radii [N] int32: three standard deviations along the longer axis, rounded up."""
    middle = p.covariances[:, [0, 2]].mean(dim=1)
    longest = middle + (middle**2 - determinant(p.covariances)).clamp(min=0).sqrt()
    return (3 * longest.clamp(min=0).sqrt()).ceil().clamp(max=1e9).to(torch.int32)


def composite(p: Projected, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blend Gaussians in depth order front to back (Eq. 3) at pixels [P, 2].

    Returns rgb [P, 3] without the background, depth [P] and the final transmittance [P].
    """
    dx, dy = (pixels[:, None, :] - p.means).unbind(-1)
    xx, xy, yy = p.covariances.unbind(-1)
    distances = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant(
        p.covariances
    )  # d^T Sigma'^-1 d
    alphas = (p.opacities * torch.exp(-0.5 * distances)).clamp(max=MAX_ALPHA)
    alphas = torch.where(alphas >= MIN_ALPHA, alphas, torch.zeros_like(alphas))
    with (
        torch.no_grad()
    ):  # the product only falls, so those before the stop are exactly those that leave enough
        enough = torch.cumprod(1 - alphas, dim=1) >= MIN_TRANSMITTANCE
    alphas = torch.where(enough, alphas, torch.zeros_like(alphas))
    transmittances = torch.cumprod(torch.cat([torch.ones_like(pixels[:, :1]), 1 - alphas], dim=1), dim=1)
    weights = transmittances[:, :-1] * alphas
    return weights @ p.colors, weights @ p.depths, transmittances[:, -1]


def render_view(p: Projected, views: Views, view: int) -> Tensor:
    """Image [5, H, W] of Gaussians in depth order: red, green, blue, depth and alpha."""
    background = views.backgrounds[view].to(p.means)
    low, high = (p.means - reach(p)).detach(), (p.means + reach(p)).detach()
    rows = []
    for y in range(0, views.height, TILE):
        row = []
        for x in range(0, views.width, TILE):
            ys = torch.arange(y, min(y + TILE, views.height)).to(p.means)
            xs = torch.arange(x, min(x + TILE, views.width)).to(p.means)
            pixels = torch.cartesian_prod(ys, xs).flip(-1)
            here = (low <= pixels[-1] + 1e-3).all(dim=1) & (high >= pixels[0] - 1e-3).all(dim=1)
            rgb, depth, left = composite(p[here], pixels)
            tile = torch.cat([rgb + left[:, None] * background, depth[:, None], 1 - left[:, None]], dim=1)
            row.append(tile.T.reshape(5, len(ys), len(xs)))
        rows.append(torch.cat(row, dim=2))
    return torch.cat(rows, dim=1)


def rasterize(
    g: Gaussians, views: Views, anchor: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Render rgb [V, 3, H, W], depth and alpha [V, 1, H, W], radii [V, N] int32 and counts [V, 6] int32.

    values [V, N, 2] receives the pixel means (0 where culled), and anchor [V, N, 2] their gradients.
    """
    g, views = _of_one_type(g, views)
    kept = finite(g, views.sh_degree)
    candidates = kept.nonzero().squeeze(1)
    radii = torch.zeros(values.shape[:2], dtype=torch.int32, device=values.device)
    counts = radii.new_zeros(len(values), len(COUNTS))
    counts[:, COUNTS.index("nonfinite")] = len(kept) - len(candidates)
    values.zero_()
    images = []
    for view in range(len(values)):
        with torch.no_grad():
            projected = project(_subset(g, candidates), views, view)
            fates = fates_of(projected, views)
            counts[view] += torch.bincount(fates, minlength=len(COUNTS))
            # Culled Gaussians leave here, so that nothing of theirs reaches the gradients.
            shown = (fates == 0).nonzero().squeeze(1)
            shown = shown[torch.sort(projected.depths[shown], stable=True).indices]
            seen, projected = candidates[shown], projected[shown]
            radii[view, seen] = radii_of(projected)
            values[view, seen] = projected.means.to(values)
        p = project(_subset(g, seen), views, view)
        nudge = anchor[view][seen].to(p.means)
        images.append(render_view(replace(p, means=p.means + (nudge - nudge.detach())), views, view))
    image = torch.stack(images)
    return image[:, :3], image[:, 3:4], image[:, 4:], radii, counts


def _of_one_type(g: Gaussians, views: Views) -> tuple[Gaussians, Views]:
    """The scene in the widest floating type in it, which is at least float32."""
    tensors = [t for t in (*vars(g).values(), *vars(views).values()) if isinstance(t, Tensor)]
    widest = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return map_tensors(g, lambda t: t.to(widest)), map_tensors(views, lambda t: t.to(widest))


def _subset(g: Gaussians, index: Tensor) -> Gaussians:
    def pick(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index]

    return Gaussians(
        g.means[index],
        g.opacities[index],
        pick(g.scales),
        pick(g.rotations),
        pick(g.covariances),
        pick(g.shs),
        pick(g.colors),
    )
