"""An iteration: cameras, render, guidance, gradient, update."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from gaussian_renderer.regularize import binary_alpha, mean_alpha, mean_scale, tv, tv_l1
from gaussian_renderer.training_views import TrainingViews, training_views
from guidance import GuidanceOutput
from guidance.condition import ORIGINAL
from guidance.poses import packed
from guidance.prior import InstructPix2Pix
from scene.brightness import brightness, equalize_brightness, equalizes, lift_colors
from scene.cameras import Cameras, sample, view_range_at
from scene.densify import cap_scales, refine, refines
from scene.optimizer import Update
from scene.statistics import DensificationStats
from training.memory_plan import half, whole_sets
from training.state import Noted, Training
from utils.device import release_memory
from utils.ranks import Ranks

Number = TypeVar("Number", float, float | Tensor)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Iteration:
    """Results of an iteration: numbers by name, left on the device where they are there, and the first of its views with
    what the guidance gave for them."""

    numbers: dict[str, float | Tensor]
    seen: TrainingViews
    guided: GuidanceOutput


def training_step(state: Training, step: int) -> Iteration:
    """Do iteration `step`, from 1, up to density control without any wait for the device: `settle` looks at what was found.

    The guidance is called once. Its gradient in the pixels then moves the Gaussians `raster_steps` times: they are rendered
    again by the same cameras, with the same augmentations, and the regularisers are computed anew.
    """
    config, ranks = state.config, state.ranks
    params, camera, views = config.optimization, config.camera, config.guidance.C_batch_size
    together, rng = state.prior.views_per_set, state.draws.at("cameras", step)
    cameras = sample(camera, view_range_at(camera, params, step), views, rng, views_per_set=together)
    guided = parts = backward_in_parts(state, cameras, step)
    updates = [update(state, parts, cameras, step)]
    while len(updates) < params.raster_steps:
        constrain(state)
        parts = [backward(state, cameras, part.views, step, part) for part in guided]
        updates.append(update(state, parts, cameras, step))
    if refines(params, step):
        rng = state.draws.at("densify", step)
        state.counts.add(refine(state.optimizer, params, step, state.most_gaussians(), rng))
    found = Update.of_all(updates)
    dimmed = torch.zeros_like(found.made)
    if config.guidance.BEG and equalizes(params, step):
        bright = [brightness(part.seen.out.rgb, part.seen.out.alpha, params.thresh) for part in parts]
        dimmed = equalize_brightness(
            state.optimizer, ranks.all_views(torch.cat(bright), views, together), params
        )
    constrain(state)
    poses = weigh_poses(state, guided)
    first, sizes = guided[0], [len(part.views) for part in guided]
    times = mean_of([part.guided.times for part in guided], sizes)
    diagnostics = mean_of([part.guided.diagnostics for part in guided], sizes)
    asked = float(diagnostics["unet_evals_per_view"]) * sum(sizes) / views
    evaluations = torch.full_like(found.made, asked, dtype=torch.float32)
    ranks.sum_([evaluations])
    cosine = diagnostics.get("cosine_to_exact")
    state.noted.append(
        Noted(step, times, found, dimmed, evaluations, None if cosine is None else torch.as_tensor(cosine))
    )
    numbers = {
        **{f"loss/{name}": sum_of([part.losses[name] for part in guided]) for name in first.losses},
        **{f"guidance/{name}": value for name, value in (times | diagnostics).items()},
        **{f"grad_norm/{name}": value for name, value in found.gradients.items()},
        **{f"poses/{name}": value for name, value in poses.items()},
    }
    return Iteration(numbers, first.seen, first.guided)


@dataclass(frozen=True)
class Part:
    """Part of an iteration's `views`: as they were seen, what the guidance gave and its gradient in the pixels, and the
    detached parts of the loss."""

    views: range
    seen: TrainingViews
    guided: GuidanceOutput
    gradient: Sequence[Tensor | None]
    losses: Mapping[str, float | Tensor]


def backward_in_parts(state: Training, cameras: Cameras, step: int) -> list[Part]:
    """Add the gradients of this process's share of the views to the Gaussians', so many at a time as fit into memory.

    If they do not fit, their number is halved, for the rest of the run too. Raises torch.OutOfMemoryError if one view, or one
    set of those that the prior sees together, does not.
    """
    together = state.prior.views_per_set
    counts, mine = state.counts, state.ranks.share(len(cameras), together)
    while True:
        at_once = whole_sets(counts.views_at_once or len(mine), together)
        try:
            return [
                backward(state, cameras, mine[first : first + at_once], step)
                for first in range(0, len(mine), at_once)
            ]
        except torch.OutOfMemoryError:
            if at_once == together:
                raise
        # Out here nothing holds the tensors of the attempt any more.
        counts.views_at_once = half(at_once, together)
        logger.warning(
            "Out of memory at iteration %d: from here on %d views at a time, in place of %d.",
            step, counts.views_at_once, at_once,
        )  # fmt: skip
        state.optimizer.forget_gradients()
        release_memory(state.device)


def backward(state: Training, cameras: Cameras, views: range, step: int, before: Part | None = None) -> Part:
    """Add the gradients of these `views` of an iteration with `cameras`; the guidance's is that of the part `before`, if given."""
    config, gaussians, draws = state.config, state.gaussians, state.draws
    params, these = config.optimization, cameras[views.start : views.stop]
    together = state.prior.views_per_set
    seen = training_views(gaussians, these.to(state.device), config, step, views, draws, together)
    out = seen.out
    if before is None:
        leaves, rngs = seen.detached(), draws.of_sets("timesteps", step, views, together)
        # Prompts depend on the cameras: taken from those on the host, so that nothing waits for the device.
        conditioning = state.prompts.at(these.azimuth, these.polar, mirrored=seen.mirrored)
        if isinstance(state.prior, InstructPix2Pix):
            assert state.original is not None
            shown = state.original.images(seen)
            conditioning = conditioning.with_part(ORIGINAL, state.prior.encode_original(shown))
            seen = replace(seen, guide={"The original": shown})
        if state.steering is not None:
            pictures = state.steering.pictures(state.prior, these, step, mirrored=seen.mirrored)
            if pictures is not None:
                conditioning = conditioning.shown(pictures)
                seen = replace(seen, guide=state.steering.named(pictures))
        guided = state.guide(leaves.images, conditioning, step - 1, rngs, colors=leaves.colors)
        guided.loss.backward()
        gradient: Sequence[Tensor | None] = [pixels.grad for pixels in leaves.pixels()]
    else:
        guided, gradient = before.guided, before.gradient
    # Means over views: of a part of them, a part. Of what has no weight nothing is computed.
    share = len(views) / len(cameras)
    penalties: dict[str, float | Tensor] = {
        "tv": params.lambda_tv and share * params.lambda_tv * (tv(out.rgb) + tv(seen.disparity)),
        "tv_l1": params.lambda_tv_l1 and share * params.lambda_tv_l1 * tv_l1(out.rgb),
        "scale": params.lambda_scale and share * params.lambda_scale * mean_scale(gaussians.scales),
        "alpha": params.lambda_alpha and share * params.lambda_alpha * mean_alpha(out.alpha),
        "alpha_binary": params.lambda_alpha_binary
        and share * params.lambda_alpha_binary * binary_alpha(out.alpha),
    }
    weighed = {name: penalty for name, penalty in penalties.items() if isinstance(penalty, Tensor)}
    pulled = [(pixels, pull) for pixels, pull in zip(seen.pixels(), gradient) if pull is not None]
    # Of what is kept, a penalty has no gradient.
    pulling = [penalty for penalty in weighed.values() if penalty.requires_grad]
    roots, upstream = zip(*pulled, *((penalty, None) for penalty in pulling))
    torch.autograd.backward(roots, upstream)
    detached = {name: loss.detach() for name, loss in {"guidance": guided.loss, **weighed}.items()}
    return Part(views, seen, guided, gradient, {**penalties, **detached})


def weigh_poses(state: Training, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Add the poses that were seen in an iteration's views, by all processes, to the averages; return these for the logs, or
    nothing in an iteration that weighs none."""
    seen = [part.guided.poses for part in parts if part.guided.poses is not None]
    if state.rectifier is None or not seen:
        return {}
    whole = state.ranks.all_views(packed(seen), state.config.guidance.C_batch_size)
    state.rectifier.add(whole)
    found = state.rectifier.imbalance(whole)
    return {**found.marginal, "entropy": found.entropy}


def update(state: Training, parts: Sequence[Part], cameras: Cameras, step: int) -> Update:
    """Step along the gradients that all processes have found in their parts, and note how each Gaussian was seen."""
    state.ranks.sum_(list(state.optimizer.gradients().values()))
    seen = what_was_seen(parts, cameras, state.ranks)
    found = state.optimizer.step(step)
    state.optimizer.stats.add(seen.if_true(found.made))
    return found


def constrain(state: Training) -> None:
    """Bring what a step has moved out of the configuration's bounds back into them."""
    params = state.config.optimization
    if params.max_scale is not None and not params.keeps_geometry:
        cap_scales(state.optimizer, params.max_scale)
    if params.min_color is not None and not params.keeps_color:
        lift_colors(state.optimizer, params.min_color)


def what_was_seen(parts: Sequence[Part], cameras: Cameras, ranks: Ranks) -> DensificationStats:
    """Statistics of each Gaussian in all of an iteration's views, those of other processes too."""
    found: list[DensificationStats] = []
    for out in (part.seen.out for part in parts):
        assert out.means2d.grad is not None
        found.append(DensificationStats.of_views(out.means2d.grad, out.radii, cameras.width, cameras.height))
    total, *others = found
    for other in others:
        total.add(other)
    ranks.sum_([total.gradient_sum, total.views])
    ranks.max_(total.max_radii)
    return total


def sum_of(values: Sequence[float | Tensor]) -> float | Tensor:
    """Sum of one or more values; of a single one, without any work."""
    return sum(values[1:], values[0])


def mean_of(values: Sequence[Mapping[str, Number]], weights: Sequence[int]) -> dict[str, Number]:
    """Weighted mean, by name, of mappings with the same names."""
    if len(values) == 1:
        return dict(values[0])
    return {
        name: sum(weight * each[name] for each, weight in zip(values, weights)) / sum(weights)
        for name in values[0]
    }
