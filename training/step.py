"""One iteration: cameras, render, guidance, gradient, update."""

from __future__ import annotations

from torch import Tensor

from gaussian_renderer.recorder import Recorder
from gaussian_renderer.regularize import binary_alpha, mean_alpha, mean_scale, tv
from gaussian_renderer.training_views import training_views
from scene.brightness import equalize_brightness
from scene.cameras import sample, view_range_at
from scene.densify import cap_scales, refine
from training.faults import judge_update
from training.state import Training


def training_step(state: Training, step: int, recorder: Recorder) -> dict[str, float | Tensor]:
    """Iteration `step`, from 1. Returns what to log.

    Raises FloatingPointError, one sentence, where `judge_update` gives up.
    """
    config, gaussians, rng = state.config, state.gaussians, state.rng
    params, camera = config.optimization, config.camera
    cameras = sample(
        camera, view_range_at(camera, params, step), config.guidance.C_batch_size, rng["cameras"]
    )
    # Prompts depend on the cameras: taken while these are on the host, so that nothing waits for the device.
    conditioning = state.prompts.at(cameras.azimuth, cameras.polar)
    seen = training_views(gaussians, cameras.to(state.device), config, step, rng)
    out = seen.out

    guided = state.guide(seen.images, conditioning, step - 1, rng["timesteps"])
    penalties = {
        "tv": params.lambda_tv * (tv(out.rgb) + tv(seen.disparity)),
        "scale": params.lambda_scale * mean_scale(gaussians.scales),
        "alpha": params.lambda_alpha * mean_alpha(out.alpha),
        "alpha_binary": params.lambda_alpha_binary * binary_alpha(out.alpha),
    }
    (guided.loss + sum(penalties.values())).backward()

    assert out.means2d.grad is not None
    update = state.optimizer.step(step)
    if judge_update(update, state.counts, step, guided.times):
        state.stats.accumulate(out.means2d.grad, out.radii, cameras.width, cameras.height)
    recorder.picture(step, seen, guided.predictions, guided.gradient)
    refine(state.optimizer, state.stats, params, step, rng["densify"])
    if config.guidance.BEG:
        state.counts.dimmed += equalize_brightness(state.optimizer, out.rgb, out.alpha, params, step)
    if params.max_scale is not None:
        cap_scales(gaussians, params.max_scale)
    return {
        "loss/guidance": guided.loss.detach(),
        **{f"loss/{name}": value.detach() for name, value in penalties.items()},
        **{f"guidance/{name}": value for name, value in {**guided.times, **guided.diagnostics}.items()},
        **{f"grad_norm/{name}": value for name, value in update.norms.items()},
    }
