"""A run in numbers: for the logs on the way, in a few lines at its end, and its costs."""

from __future__ import annotations

import logging
import textwrap

from config import differences
from gaussian_renderer import COUNTS
from scene.gaussian_model import GaussianModel
from training.encoders import encoders_in_turn
from training.priors import priors_in_turn
from training.state import DENSITY, Counts, Training
from training.step import Iteration
from utils.device import machine, peak_memory
from utils.run_cost import RunCost

logger = logging.getLogger(__name__)

LEAST_OPACITY = 1 / 255
"""Opacity below which the rasterizer leaves a Gaussian out."""


def logged_numbers(state: Training, iteration: Iteration) -> dict[str, float]:
    """An iteration's numbers, how the run is going, and why Gaussians were left out, by 'group/name'.

    rasterizer/...: Gaussians in a view, mean over the first views: drawn, or culled for which reason. Tensors stay on their
    device.
    """
    counts, params = state.counts, state.config.optimization
    of_views = iteration.seen.out.counts.float().mean(dim=0)
    dimmed = {"run/times_dimmed": counts.dimmed} if state.config.guidance.BEG else {}
    return {
        **iteration.numbers,
        **{f"rasterizer/{name}": count for name, count in zip(COUNTS, of_views.unbind())},
        **{f"lr/{name}": rate for name, rate in state.optimizer.rates(counts.step).items()},
        **({} if params.keeps_geometry else {f"density/{name}": getattr(counts, name) for name in DENSITY}),
        **dimmed,
        "run/bad_steps": counts.bad_steps,
        "run/gaussians": len(state.gaussians),
        "run/iterations_per_second": counts.step / counts.seconds,
        "run/memory_GB": peak_memory(state.device),
    }


def summary(state: Training) -> list[str]:
    """Describe the run in a few lines, with the settings that differ from the defaults."""
    config, counts = state.config, state.counts
    lines = [
        f"{config.guidance_type}, prior {config.guidance.model_key}, seed {config.seed}: {counts.step} iterations in "
        f"{counts.seconds:.0f} s ({counts.step / counts.seconds:.1f} it/s), {len(state.gaussians)} Gaussians",
        *priors_in_turn(config),
        *encoders_in_turn(config),
        *density_control(counts),
        *invisible(state.gaussians),
    ]
    if config.guidance.BEG:
        lines.append(f"Brightness-Equalised Generation dimmed the colours {counts.dimmed} times")
    settings = textwrap.wrap(", ".join(differences(config)), 110)
    return [*lines, "Settings that differ from the defaults:", *settings]


def density_control(counts: Counts) -> list[str]:
    """Describe what density control has done in one line; none if it did nothing."""
    done = {name.replace("_", " "): getattr(counts, name) for name in DENSITY}
    parts = [f"{count:,} {name}" for name, count in done.items() if count]
    return [f"Density control: {', '.join(parts)}"] if parts else []


def invisible(gaussians: GaussianModel) -> list[str]:
    """Sentence for Gaussians none of which can be seen, with what makes runs end like that; none for others."""
    greatest = float(gaussians.opacities.detach().max())
    if greatest >= LEAST_OPACITY:
        return []
    return [
        f"The asset is invisible: its greatest opacity is {greatest:.2g}. A lower opacity_lr, lambda_alpha or guidance_scale "
        "may keep it, and iterations that were left out are counted above."
    ]


def warn_if_invisible(gaussians: GaussianModel) -> None:
    """Log the sentence of `invisible`, if there is one."""
    for sentence in invisible(gaussians):
        logger.warning(sentence)


def cost_of(state: Training) -> RunCost:
    """Cost of the finished run."""
    counts = state.counts
    return RunCost(
        seconds=counts.seconds,
        peak_memory=peak_memory(state.device),
        gaussians=len(state.gaussians),
        evaluations=counts.evaluations / state.config.optimization.iterations,
        machine=machine(state.device),
        core_seconds=counts.core_seconds,
    )
