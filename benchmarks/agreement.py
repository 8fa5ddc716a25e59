"""Measure how far gradients of the prior agree in the images: two draws of the papers' own, and that of `--fast` with it.

python benchmarks/agreement.py outputs/quickstart/RUN ...

Takes the prompt, the method and the asset of each finished run of the quickstart, in the middle of its window of times. Prints the
median cosine between two draws of times and noise at the same images, and those of `--fast` and of `--fast --encoder full` with the
papers' own gradient at the same draw.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from evaluation.runs import Outcome
from evaluation.table import aligned
from gaussian_renderer.training_views import training_views
from scene.cameras import sample, view_range_at
from training.state import Training, assemble

DRAWS = 6


def state_of(outcome: Outcome, *flags: str) -> Training:
    """The quickstart from a run's asset, with its prompt and method."""
    config = outcome.config
    own = ("--text", config.guidance.text, "--guidance_type", config.guidance_type)
    given = ("--pretrained_model_path", str(outcome.folder.asset), "--seed", str(config.seed), "--quiet")
    return assemble(configuration.load([*own, *given, *flags]))


def draws(state: Training) -> list[tuple[Tensor, float | None]]:
    """Gradients in the images of a run's middle iteration, and their cosines with the papers' own if they are checked: the same
    views, other times and noise."""
    config, found = state.config, []
    # A multiple of ten, which is checked.
    step, views = config.optimization.iterations // 20 * 10, range(config.guidance.C_batch_size)
    view_range = view_range_at(config.camera, config.optimization, step)
    cameras = sample(config.camera, view_range, len(views), state.draws.at("cameras", step))
    conditioning = state.prompts.at(cameras.azimuth, cameras.polar)
    seen = training_views(
        state.gaussians, cameras.to(state.device), config, step, views, state.draws
    ).detached()
    for draw in range(DRAWS):
        images = seen.images.detach().requires_grad_()
        rngs = state.draws.of_views("timesteps", 1000 * draw, views)
        guided = state.guide(images, conditioning, step - 1, rngs, colors=seen.colors)
        cosine = guided.diagnostics.get("cosine_to_exact")
        gradient = torch.autograd.grad(guided.loss, images)[0].flatten()
        found.append((gradient, None if cosine is None else float(cosine)))
    return found


def line(outcome: Outcome) -> list[str]:
    """A run's line in the table."""
    exact = [gradient for gradient, _ in draws(state_of(outcome, "--fast", "false"))]
    others = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(exact, 2)]
    checked = []
    for encoder in ("small", "full"):
        found = draws(state_of(outcome, "--fast", "--check_interval", "10", "--encoder", encoder))
        checked.append([cosine for _, cosine in found if cosine is not None])
    columns = [f"{statistics.median(values):.2f}" if values else "the same" for values in (others, *checked)]
    return [outcome.config.guidance.text, outcome.config.guidance_type, *columns]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    head = ["prompt", "method", "another draw", "fast", "fast, encoder full"]
    print(aligned([head, *(line(Outcome.read(run)) for run in parser.parse_args().runs)]))


if __name__ == "__main__":
    main()
