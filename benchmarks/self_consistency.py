"""`python benchmarks/self_consistency.py`: what SCTD's gradient is without its self-consistency, and with one-step trajectories.

Run in the root of the project's checkout; it takes minutes on toybox. Prints the cosine between each gradient in the latents and
the paper's (Eq. 10, two steps above t_threshold) over ω: the median of all views, and the value that a tenth of them is below.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from config import Config
from evaluation.table import aligned
from gaussian_renderer import Gaussians, render
from guidance import SCTD, Denoiser, embed_prompts
from guidance.prior import load_prior
from scene.cameras import sample, view_range_at
from toybox.captions import HELD_OUT, caption
from toybox.splats import Splats, canonical
from utils.rng import Draws, normal_like

OMEGAS = (0.0, 0.5, 1.0, 2.0, 4.0, 7.5, 20.0, 50.0, 100.0)
STEPS = (1, 60, 120, 180, 240, 300)
WORN = 0.15
"""Standard deviation of the noise on colours, and in units of its scale on each position, of a half-made asset."""

Parts = dict[str, Tensor]


def worn(toy: Splats, rng: torch.Generator) -> Splats:
    """Make a half-made asset of a toy."""
    moved = toy.means + 5 * WORN * toy.scales * normal_like(toy.means, rng)
    return replace(toy, means=moved, colors=toy.colors + WORN * normal_like(toy.colors, rng))


def gradients(config: Config, toys: int) -> Iterator[tuple[Parts, Parts]]:
    """Yield the terms of SCTD's gradient for the views of an iteration, weighed for ω = 0: along two-step and one-step
    trajectories, of the same times and noise."""
    prior, draws = load_prior(config, torch.device("cpu")), Draws(config.seed)
    for name in sorted(HELD_OUT, key=caption)[:: max(1, len(HELD_OUT) // toys)][:toys]:
        guidance = config.guidance.model_copy(update={"text": caption(name), "guidance_scale": 0.0})
        whole = config.model_copy(update={"guidance": guidance})
        short = guidance.model_copy(update={"t_threshold": 1000})
        prompts = embed_prompts(whole, prior)
        methods = [
            SCTD(each, Denoiser(prior)) for each in (whole, whole.model_copy(update={"guidance": short}))
        ]
        toy: Gaussians = worn(canonical(name), draws.at("init"))
        for step in STEPS:
            cameras = sample(
                config.camera,
                view_range_at(config.camera, config.optimization, step),
                4,
                draws.at("cameras", step),
            )
            with torch.no_grad():
                z0 = prior.encode(render(toy, cameras, torch.ones(4, 3)).rgb)
                conditioning = prompts.at(cameras.azimuth, cameras.polar)
                two, one = (
                    method(z0, conditioning, step - 1, draws.of_views("timesteps", step, range(4)))
                    for method in methods
                )
            yield dict(two.parts), dict(one.parts)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each view's gradients [V, ...]."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)


def weighed(parts: Parts, omega: float, w_self: float = 1.0) -> Tensor:
    """Eq. 10's gradient of terms that are weighed for ω = 0."""
    return w_self * parts["self"] + (omega + 1) ** 2 * parts["cross"]


def table(found: list[tuple[Parts, Parts]]) -> str:
    """Markdown: cosines over ω."""
    rows = [
        ["ω", "without self-consistency", "one step", "both", "norm of the self term, share of the whole"]
    ]
    for omega in OMEGAS:
        whole = [weighed(two, omega) for two, _ in found]
        variants = (
            [weighed(two, omega, 0) for two, _ in found],
            [weighed(one, omega) for _, one in found],
            [weighed(one, omega, 0) for _, one in found],
        )
        shown = [torch.cat([cosines(a, b) for a, b in zip(variant, whole)]).double() for variant in variants]
        share = torch.cat(
            [
                two["self"].flatten(1).norm(dim=1) / all_.flatten(1).norm(dim=1)
                for (two, _), all_ in zip(found, whole)
            ]
        )
        cells = [f"{float(each.median()):.4f} ({float(each.quantile(0.1)):.4f})" for each in shown]
        rows.append([f"{omega:g}", *cells, f"{100 * float(share.median()):.1f}%"])
    return aligned(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--toys", type=int, default=10, help="half-made toys that training never saw (default: 10)"
    )
    given = parser.parse_args()
    settings = configuration.load(["--opt", "config/quickstart.yaml", "--fast", "false", "--text", "a toy"])
    print(table(list(gradients(settings, given.toys))))
