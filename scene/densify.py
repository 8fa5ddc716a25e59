"""Density control: where Gaussians are added, split, moved and removed while training.

Adaptive density control is 3DGS's (Kerbl et al. 2023, Sec. 5), relocation is 3DGS-MCMC's (Kheradmand et al.
2024, Sec. 4). Everything here is a function of (optimizer, with its model and statistics; parameters; generator) and runs
outside of autograd. What the optimizer holds fixed is neither changed nor copied nor removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from config.schema import OptimizationParams
from scene.gaussian_model import GaussianModel
from scene.optimizer import GaussianOptimizer
from utils.rotation import quaternion_to_matrix
from utils.spherical_harmonics import num_coefficients

MIN_OPACITY = 0.005
"""Opacity below which a Gaussian is pruned or relocated."""
RESET_OPACITY = 0.01
"""Opacity that resets bring every larger one down to."""
MAX_WORLD_SCALE = 0.1
"""Scale above which Gaussians are pruned once the first reset has passed, as a share of the extent."""
CHILDREN = 2
"""Number of Gaussians that one is split into."""
CHILD_SHRINK = 0.8 * CHILDREN
"""Divisor of the scales of a split's children."""
SHARE_OF_MEMORY = 0.5
"""Share of the free memory that a run's Gaussians may take: a run that diverges must not take the machine with it."""
RELOCATION_JITTER = 0.25
"""Standard deviations by which relocated Gaussians miss their target: exact copies would never part."""


def _rows(model: GaussianModel, which: Tensor) -> dict[str, Tensor]:
    return {name: parameter.detach()[which] for name, parameter in model.raw().items()}


def _strongest(candidates: Tensor, gradient: Tensor, room: int) -> Tensor:
    """`candidates` [N] (bool), or the `room` of them with the largest gradient if there are more."""
    if int(candidates.sum()) <= room:
        return candidates
    order = torch.where(candidates, gradient, -1.0).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(candidates)
    chosen[order[:room]] = True
    return chosen & candidates


@torch.no_grad()
def clone(optimizer: GaussianOptimizer, params: OptimizationParams, most: int) -> int:
    """Copy the small Gaussians (scale ≤ percent_dense · extent) with a large gradient, the strongest ones where there
    would be more than `most` in all; returns how many."""
    model = optimizer.model
    gradient = optimizer.stats.mean_gradient()
    small = model.scales.amax(dim=1) <= params.percent_dense * optimizer.extent
    candidates = (gradient >= params.densify_grad_threshold) & small & optimizer.free
    chosen = _strongest(candidates, gradient, max(0, most - len(model)))
    count = int(chosen.sum())
    optimizer.append(_rows(model, chosen))
    return count


@torch.no_grad()
def split(optimizer: GaussianOptimizer, params: OptimizationParams, most: int, rng: torch.Generator) -> int:
    """Replace the large Gaussians with a large gradient by two children each, as `clone` does; returns how many.

    Children are placed by drawing from the parent, their scales are the parent's / 1.6, the rest they
    inherit.
    """
    model = optimizer.model
    gradient = optimizer.stats.mean_gradient()
    large = model.scales.amax(dim=1) > params.percent_dense * optimizer.extent
    candidates = (gradient >= params.densify_grad_threshold) & large & optimizer.free
    chosen = _strongest(candidates, gradient, max(0, most - len(model)) // (CHILDREN - 1))
    count = int(chosen.sum())
    if count == 0:
        return 0
    parents = chosen.nonzero()[:, 0].repeat(CHILDREN)
    children = _rows(model, parents)
    children["xyz"] = _draw(model, parents, 1.0, rng)
    children["scaling"] = children["scaling"] - math.log(CHILD_SHRINK)
    optimizer.append(children)
    optimizer.keep(torch.cat([~chosen, chosen.new_ones(len(parents))]))
    return count


def _draw(model: GaussianModel, rows: Tensor, spread: float, rng: torch.Generator) -> Tensor:
    """Draw a point [M, 3] from each of the Gaussians `rows` [M] with its standard deviations times `spread`."""
    normal = torch.randn(len(rows), 3, generator=rng).to(model.means)
    offsets = quaternion_to_matrix(model._rotations[rows]) @ (spread * model.scales[rows] * normal)[..., None]
    return model.means[rows] + offsets[..., 0]


@torch.no_grad()
def prune(optimizer: GaussianOptimizer, params: OptimizationParams, *, large_too: bool) -> int:
    """Remove faint Gaussians (opacity < 0.005) and, if `large_too`, those too large in the world or, with
    `max_screen_radius`, on the screen.

    Returns how many were removed; the most opaque one always stays, since nothing can grow from nothing.
    """
    model = optimizer.model
    opacities = model.opacities[:, 0]
    gone = opacities < MIN_OPACITY
    if large_too:
        gone |= model.scales.amax(dim=1) > MAX_WORLD_SCALE * optimizer.extent
        if params.max_screen_radius is not None:
            gone |= optimizer.stats.max_radii > params.max_screen_radius
    gone &= optimizer.free
    if len(model) > 0:
        gone[opacities.argmax()] = False
    optimizer.keep(~gone)
    return int(gone.sum())


@torch.no_grad()
def reset_opacity(optimizer: GaussianOptimizer) -> None:
    """Bring every opacity down to at most 0.01 and forget Adam's moments of them."""
    ceiling = math.log(RESET_OPACITY / (1.0 - RESET_OPACITY))
    optimizer.replace("opacity", optimizer.model._opacities.clamp_max(ceiling))


def cap_scales(optimizer: GaussianOptimizer, max_scale: float) -> None:
    """Limit every scale to `max_scale` world units, in place."""
    optimizer.clamp("scaling", max=math.log(max_scale))


def shared_opacity(opacities: Tensor, copies: Tensor) -> Tensor:
    """Opacity of n copies that together cover what one Gaussian did: 1 - (1-o)^(1/n) (3DGS-MCMC Eq. 9)."""
    return -torch.expm1(torch.log1p(-opacities) / copies)


def shared_scale(opacities: Tensor, copies: Tensor) -> Tensor:
    """Factor on the scales of those n copies (3DGS-MCMC Eq. 9, second line), float64 [M].

    The paper's factor o / Σ_{i=1}^{n} Σ_{k=0}^{i-1} C(i-1,k) (-1)^k o'^{k+1} / √(k+1) cancels
    catastrophically for many copies. With 1/√(k+1) = π^{-1/2} ∫ exp(-(k+1) x²) dx, the double sum is
    π^{-1/2} ∫ 1 - (1 - o' e^{-x²})^n dx: the copies' coverage along a line, which the trapezoidal rule
    integrates to float64's precision.
    """
    o, n = opacities.double()[:, None], copies.double()[:, None]
    step = 0.1
    x = step * torch.arange(81, dtype=torch.float64, device=opacities.device)  # even: one half will do
    shared = shared_opacity(o, n)
    covered = -torch.expm1(n * torch.log1p(-shared * torch.exp(-x * x)))
    return o[:, 0] * math.sqrt(math.pi) / (step * (2.0 * covered.sum(dim=1) - covered[:, 0]))


@torch.no_grad()
def relocate(optimizer: GaussianOptimizer, rng: torch.Generator) -> int:
    """Move the faint Gaussians (opacity < 0.005) onto others, drawn in proportion to opacity; returns how
    many.

    A target and its n - 1 new copies share opacity and scale by 3DGS-MCMC's Eq. 9, so that the image stays
    the same but for a small displacement of the copies, without which they would get the same gradients for
    ever. The moments and statistics of all rows concerned are cleared.
    """
    model = optimizer.model
    # In float32 a logit of 17 is an opacity of 1, and so are copies of it, whose logits would be infinite.
    opacities = torch.sigmoid(model._opacities[:, 0].double()).clamp_max(1 - torch.finfo(torch.float64).eps)
    faint, free = opacities < MIN_OPACITY, optimizer.free
    moved, alive = (faint & free).nonzero()[:, 0], (~faint & free).nonzero()[:, 0]
    if len(moved) == 0 or len(alive) == 0:
        return 0
    # Inverse transform sampling on the host, so that any device draws the same targets.
    cumulative = opacities[alive].to(rng.device).cumsum(0)
    draws = torch.rand(len(moved), generator=rng, dtype=torch.float64) * cumulative[-1]
    slots = torch.searchsorted(cumulative, draws, right=True).clamp_max(len(alive) - 1)
    targets = alive[slots.to(alive.device)]

    copies = torch.bincount(targets, minlength=len(model)) + 1
    unique = targets.unique()
    factor = shared_scale(opacities[unique], copies[unique]).to(model.means.dtype)
    logits = torch.logit(shared_opacity(opacities[unique], copies[unique])).to(model.means.dtype)
    places = _draw(model, targets, RELOCATION_JITTER, rng)
    optimizer.replace("opacity", logits[:, None], unique)
    optimizer.replace("scaling", model._scales[unique] + factor.log()[:, None], unique)
    rows = _rows(model, targets)
    rows["xyz"] = places
    for name, values in rows.items():
        optimizer.replace(name, values, moved)
        optimizer.replace(name, model.raw()[name].detach()[unique], unique)
    optimizer.stats.clear(torch.cat([moved, unique]))
    return len(moved)


@dataclass(frozen=True)
class Refinement:
    """Numbers of Gaussians that one call of `refine` changed."""

    cloned: int = 0
    split: int = 0
    pruned: int = 0
    relocated: int = 0
    opacity_reset: bool = False


def bytes_per_gaussian(sh_degree: int, views: int) -> int:
    """Memory that a Gaussian takes while training: parameters, gradients, two moments and a copy while rows are added, and what
    the rasterizer keeps of it for each of an iteration's views, in float32."""
    return 4 * (5 * (11 + 3 * num_coefficients(sh_degree)) + 64 * views)


def grows(params: OptimizationParams, step: int) -> bool:
    """Return whether `refine` may add Gaussians after iteration `step`."""
    return (
        not params.keeps_geometry
        and params.densify_from_iter < step < params.densify_until_iter
        and step % params.densification_interval == 0
    )


def refines(params: OptimizationParams, step: int) -> bool:
    """Return whether `refine` does anything after iteration `step`."""
    return grows(params, step) or relocates(params, step) or resets(params, step)


def relocates(params: OptimizationParams, step: int) -> bool:
    """Return whether `refine` moves faint Gaussians after iteration `step`."""
    due = params.relocate_interval > 0 and step % params.relocate_interval == 0 and step < params.iterations
    return due and not params.keeps_geometry


def resets(params: OptimizationParams, step: int) -> bool:
    """Return whether `refine` brings the opacities down after iteration `step`."""
    last = min(params.densify_until_iter, params.iterations)
    due = step < last and step % params.opacity_reset_interval == 0
    return due and not params.keeps_geometry


def refine(
    optimizer: GaussianOptimizer, params: OptimizationParams, step: int, most: int, rng: torch.Generator
) -> Refinement:
    """Do the density control due after iteration `step` (from 1), up to `most` Gaussians in all.

    Clone, split and prune every `densification_interval` in (densify_from_iter, densify_until_iter);
    opacity resets every `opacity_reset_interval` until then; relocation every `relocate_interval`, if set. The last two not
    after the last iteration, when nothing could settle any more. Where the geometry is kept, nothing is ever due.
    """
    cloned = parted = pruned = relocated = 0
    if grows(params, step):
        cloned = clone(optimizer, params, most)
        parted = split(optimizer, params, most, rng)
        pruned = prune(optimizer, params, large_too=step > params.opacity_reset_interval)
        optimizer.stats.clear()
    if relocates(params, step):
        relocated = relocate(optimizer, rng)
    reset = resets(params, step)
    if reset:
        reset_opacity(optimizer)
    return Refinement(cloned, parted, pruned, relocated, reset)
