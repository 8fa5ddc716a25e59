"""One iteration: cameras, render, guidance, gradient, update."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from gaussian_renderer.recorder import Recorder
from gaussian_renderer.regularize import binary_alpha, mean_alpha, mean_scale, tv
from gaussian_renderer.training_views import TrainingViews, training_views
from guidance import GuidanceOutput
from scene.brightness import equalize_brightness
from scene.cameras import Cameras, sample, view_range_at
from scene.densify import cap_scales, refine
from training.faults import judge_update
from training.state import Training
from utils.device import release_memory

Number = TypeVar("Number", float, float | Tensor)

logger = logging.getLogger(__name__)


def training_step(state: Training, step: int, recorder: Recorder) -> dict[str, float | Tensor]:
    """Iteration `step`, from 1. Returns what to log.

    Raises FloatingPointError, one sentence, where `judge_update` gives up.
    """
    config, gaussians, rng = state.config, state.gaussians, state.rng
    params, camera = config.optimization, config.camera
    cameras = sample(
        camera, view_range_at(camera, params, step), config.guidance.C_batch_size, rng["cameras"]
    )
    parts = backward_in_parts(state, cameras, step)
    times = mean_of([part.guided.times for part in parts])
    update = state.optimizer.step(step)
    if judge_update(update, state.counts, step, times):
        for part in parts:
            grad = part.seen.out.means2d.grad
            assert grad is not None
            state.stats.accumulate(grad, part.seen.out.radii, cameras.width, cameras.height)
    elif not state.prior.widen_overflowed():
        # All answers of half precision were in its range: the way back has left it, which is the autoencoder's.
        state.prior.widen("vae")
    first = parts[0]
    recorder.picture(step, first.seen, first.guided.predictions, first.guided.gradient)
    refine(state.optimizer, state.stats, params, step, state.most_gaussians(), rng["densify"])
    if config.guidance.BEG:
        rgb, alpha = (
            torch.cat([getattr(part.seen.out, name) for part in parts]) for name in ("rgb", "alpha")
        )
        state.counts.dimmed += equalize_brightness(state.optimizer, rgb, alpha, params, step)
    if params.max_scale is not None:
        cap_scales(gaussians, params.max_scale)
    return {
        **{f"loss/{name}": sum(part.losses[name] for part in parts) for name in first.losses},
        **{f"guidance/{name}": value for name, value in times.items()},
        **{
            f"guidance/{name}": value
            for name, value in mean_of([part.guided.diagnostics for part in parts]).items()
        },
        **{f"grad_norm/{name}": value for name, value in update.norms.items()},
    }


@dataclass(frozen=True)
class Part:
    """Some of an iteration's views: as they were seen, what the guidance said, and the detached parts of the loss."""

    seen: TrainingViews
    guided: GuidanceOutput
    losses: Mapping[str, Tensor]


def backward_in_parts(state: Training, cameras: Cameras, step: int) -> list[Part]:
    """Add the gradients of all views to the Gaussians', so many views at a time as fit into memory.

    If they do not fit, their number is halved, for the rest of the run too. Raises torch.OutOfMemoryError if one does not.
    """
    counts = state.counts
    while True:
        at_once = counts.views_at_once or len(cameras)
        try:
            return [
                backward(state, cameras[first : first + at_once], step, len(cameras))
                for first in range(0, len(cameras), at_once)
            ]
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        # Out here nothing holds the tensors of the attempt any more.
        counts.views_at_once = (at_once + 1) // 2
        logger.warning(
            "Out of memory at iteration %d: from here on %d views at a time, in place of %d.",
            step, counts.views_at_once, at_once,
        )  # fmt: skip
        state.optimizer.forget_gradients()
        release_memory(state.device)


def backward(state: Training, cameras: Cameras, step: int, views: int) -> Part:
    """Add the gradients of these of an iteration's `views`."""
    config, gaussians = state.config, state.gaussians
    params = config.optimization
    # Prompts depend on the cameras: taken while these are on the host, so that nothing waits for the device.
    conditioning = state.prompts.at(cameras.azimuth, cameras.polar)
    seen = training_views(gaussians, cameras.to(state.device), config, step, state.rng)
    out = seen.out
    guided = state.guide(seen.images, conditioning, step - 1, state.rng["timesteps"])
    # Means over views: of a part of them, a part.
    share = len(cameras) / views
    penalties = {
        "tv": share * params.lambda_tv * (tv(out.rgb) + tv(seen.disparity)),
        "scale": share * params.lambda_scale * mean_scale(gaussians.scales),
        "alpha": share * params.lambda_alpha * mean_alpha(out.alpha),
        "alpha_binary": share * params.lambda_alpha_binary * binary_alpha(out.alpha),
    }
    (guided.loss + sum(penalties.values())).backward()
    losses = {"guidance": guided.loss, **penalties}
    return Part(seen, guided, {name: value.detach() for name, value in losses.items()})


def mean_of(values: Sequence[Mapping[str, Number]]) -> dict[str, Number]:
    """By name, of mappings with the same names."""
    return {name: sum(each[name] for each in values) / len(values) for name in values[0]}
