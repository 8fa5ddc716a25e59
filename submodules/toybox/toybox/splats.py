"""Toys as Gaussians, and what can be done to them: the truth, rough point clouds, clutter, look-alikes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toybox.world import BLACK, COLORS, GREY, KINDS, SPACING, WHITE, Name, toy

SH_C0 = 0.5 / math.sqrt(math.pi)
"""The constant spherical harmonic: colour = SH_C0 · coefficient + 0.5."""


@dataclass(frozen=True)
class Splats:
    """N activated Gaussians with constant colour, as `gaussian_renderer.render` takes them.

    means, scales [N, 3] in world units, rotations [N, 4] (w, x, y, z), opacities [N, 1], colors [N, 3] in [0, 1].
    """

    means: Tensor
    scales: Tensor
    rotations: Tensor
    opacities: Tensor
    colors: Tensor

    @property
    def sh_degree(self) -> int:
        return 0

    @property
    def shs(self) -> Tensor:
        """Harmonic coefficients [N, 1, 3]."""
        return ((self.colors - 0.5) / SH_C0)[:, None]

    def __len__(self) -> int:
        return self.means.shape[0]


TENSORS = ("means", "scales", "rotations", "opacities", "colors")


def canonical(name: Name) -> Splats:
    """The true toy: a flat, nearly opaque Gaussian on every surface sample."""
    truth = toy(name)
    normals = torch.from_numpy(truth.normals)
    # The rotation that takes z to the normal n has the quaternion (1 + n_z, -n_y, n_x, 0), normalised.
    x, y, z = normals.unbind(-1)
    quaternions = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=-1)
    quaternions[1 + z < 1e-9] = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    count = len(normals)
    return Splats(
        means=torch.from_numpy(truth.points).float(),
        scales=torch.tensor([0.75, 0.75, 0.15]).mul(SPACING).expand(count, 3).contiguous(),
        rotations=torch.nn.functional.normalize(quaternions, dim=-1).float(),
        opacities=torch.full((count, 1), 0.97),
        colors=torch.from_numpy(truth.colors).float(),
    )


def subset(splats: Splats, index: Tensor) -> Splats:
    return Splats(*(getattr(splats, name)[index] for name in TENSORS))


def joined(a: Splats, b: Splats) -> Splats:
    return Splats(*(torch.cat([getattr(a, name), getattr(b, name)]) for name in TENSORS))


def worn(splats: Splats, rng: torch.Generator, amount: float) -> Splats:
    """A worn toy, still the same: points astray, uneven sizes and colours, as distilled assets have them."""
    noise = torch.randn(len(splats), 7, generator=rng)
    return replace(
        splats,
        means=splats.means + amount * 0.03 * noise[:, :3],
        scales=splats.scales * (1 + amount * noise[:, 3:4].abs()),
        colors=(splats.colors + amount * 0.10 * noise[:, 4:]).clamp(0, 1),
    )


def half_made(splats: Splats, rng: torch.Generator) -> Splats:
    """Asset on its way to a toy: points astray, Gaussians of any size and opacity, colours speckled and still pale."""
    amount, pale, thin = torch.rand(3, generator=rng)
    noise = torch.randn(len(splats), 6, generator=rng)
    size, faint = torch.rand(2, len(splats), 1, generator=rng)
    return replace(
        splats,
        means=splats.means + 0.06 * amount * noise[:, :3],
        scales=splats.scales.lerp((0.004 + 0.014 * size).expand(-1, 3), amount),
        opacities=splats.opacities * faint.pow(2 * thin),
        colors=splats.colors.lerp(splats.colors.mean(dim=0), 0.7 * pale)
        .add(0.3 * amount * noise[:, 3:])
        .clamp(0, 1),
    )


def blob(splats: Splats, rng: torch.Generator) -> Splats:
    """Blob of the right colours in no right shape: points far astray and fat Gaussians."""
    spread = 0.08 + 0.22 * float(torch.rand((), generator=rng))
    noise = torch.randn(len(splats), 3, generator=rng)
    fat = 0.02 + 0.03 * float(torch.rand((), generator=rng))
    return replace(splats, means=splats.means + spread * noise, scales=torch.full_like(splats.scales, fat))


def ring(splats: Splats, rng: torch.Generator) -> Splats:
    """Ring that looks the same from every side: every point is turned about z by an angle of its own."""
    angle = 2 * math.pi * torch.rand(len(splats), generator=rng)
    x, y, z = splats.means.unbind(-1)
    turned = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, z], dim=-1)
    return replace(splats, means=turned, scales=torch.full_like(splats.scales, 1.3 * SPACING))


def two_fronted(splats: Splats, axis: int) -> Splats:
    """The half in front of the plane x = 0 (axis 0) or y = 0 (axis 1), and its mirror image."""
    half = subset(splats, splats.means[:, axis] >= 0)
    flip = torch.ones(3)
    flip[axis] = -1
    # Mirrored normals mirror the quaternion's rotation axis; the Gaussians are round in their plane.
    w, x, y, z = half.rotations.unbind(-1)
    mirrored = torch.stack([w, x, -y, z], dim=-1) if axis == 0 else torch.stack([w, -x, y, z], dim=-1)
    return joined(half, replace(half, means=half.means * flip, rotations=mirrored))


def stitched(a: Splats, b: Splats, height: float) -> Splats:
    """Toy below `height` and another above it."""
    return joined(subset(a, a.means[:, 2] < height), subset(b, b.means[:, 2] >= height))


def recolored(splats: Splats, rng: torch.Generator) -> Splats:
    """The right shape in patches of colours that no toy has together."""
    centers = torch.randn(12, 3, generator=rng) * 0.5
    patch = torch.cdist(splats.means, centers).argmin(dim=1)
    palette = torch.tensor([*COLORS.values(), WHITE, BLACK, GREY])
    chosen = palette[torch.randint(len(palette), (12,), generator=rng)]
    return replace(splats, colors=chosen[patch])


def lump(color: str, rng: torch.Generator) -> Splats:
    """A wrong shape in the right colours: a random ellipsoid or box shell with patches of a toy's other colours."""
    donor = canonical(Name(list(KINDS)[int(torch.randint(len(KINDS), (), generator=rng))], color))
    size = 0.25 + 0.5 * torch.rand(3, generator=rng)
    direction = torch.nn.functional.normalize(torch.randn(len(donor), 3, generator=rng), dim=-1)
    if torch.rand((), generator=rng) < 0.5:
        direction = direction / direction.abs().max(dim=-1, keepdim=True).values
    base = replace(donor, means=direction * size, scales=torch.full_like(donor.scales, 1.3 * SPACING))
    plain = torch.tensor(COLORS[color]).expand_as(base.colors)
    accents = donor.colors[torch.randint(len(donor), (3,), generator=rng)]
    distance = torch.cdist(base.means, torch.randn(3, 3, generator=rng) * 0.5)
    near = distance.amin(dim=1, keepdim=True) < 0.35
    return replace(base, colors=torch.where(near, accents[distance.argmin(dim=1)], plain))


def cloud(rng: torch.Generator, num_points: int = 6000) -> Splats:
    """A ball of random Gaussians in muted random colours: what an optimisation starts from."""
    radius = 0.3 + 0.6 * float(torch.rand((), generator=rng))
    direction = torch.nn.functional.normalize(torch.randn(num_points, 3, generator=rng), dim=-1)
    distance = torch.rand(num_points, 1, generator=rng).pow(1 / 3)
    mean_color, spread = torch.rand(3, generator=rng), 0.3 * float(torch.rand((), generator=rng))
    opacity = 0.05 + 0.9 * float(torch.rand((), generator=rng))
    return Splats(
        means=radius * direction * distance,
        scales=(0.01 + 0.03 * torch.rand(num_points, 1, generator=rng)).expand(-1, 3).contiguous(),
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(num_points, 4).contiguous(),
        opacities=torch.full((num_points, 1), opacity),
        colors=(mean_color + spread * torch.randn(num_points, 3, generator=rng)).clamp(0, 1),
    )
