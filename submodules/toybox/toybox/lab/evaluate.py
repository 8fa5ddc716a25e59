"""`python -m toybox.lab.evaluate`: the judge on fresh renders, the small encoder and the priors' samples, as a table.

Run in the root of the project's checkout.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import config as configuration
import guidance
from config import Config
from config.guidance_params import TOY_PRIORS, TOYBOX
from guidance import Conditioning, Denoiser, view_weights
from guidance.camera_condition import camera_matrices
from guidance.prior import LatentPrior
from guidance.schedule import CLEAN
from guidance.solver import step
from toybox.captions import ALONE, HELD_OUT, NAMES, STACKED, VIEW_WORDS, caption
from toybox.judge import Judge, Verdict, load_judge, named_right
from toybox.lab.encoders import compare
from toybox.lab.renders import collect, toys
from toybox.lab.train_judge import impostors
from toybox.world import FACELESS, Name
from utils.media import contact_sheet, write_jpeg

VIEWS = (0.0, 90.0, 180.0)
RING = (*VIEWS, -90.0)
"""Azimuths of a prior's samples, and of one that sees four views at once."""
POLAR = 75.0

STACKED_EVERY = 7
"""Step through the toys on tables: every so many-th is sampled."""


def view_right(verdict: Verdict, azimuth: Tensor) -> Tensor:
    """Mask [B] of views that are front, side or back as wanted; which side does not count, for prompts cannot
    name it.
    """
    return ((verdict.azimuth.abs() - azimuth.abs()).abs() < 45) & (verdict.name >= 0)


def evaluate_judge(config: Config, judge: Judge, seed: int = 99) -> dict[str, float]:
    rng = torch.Generator().manual_seed(seed)
    fresh = collect(config, toys(NAMES), 4, rng, label="fresh renders")
    wrong = collect(config, impostors(), 2, rng, label="impostors")
    _, lures = wrong.draw(768, config.model, rng)
    index, images = fresh.draw(1536, config.model, rng)
    verdict = judge.judge(images)
    names = [NAMES[i] for i in fresh.name[index]]
    sided = torch.tensor([name.kind not in FACELESS for name in names])
    seen_right = view_right(verdict, torch.from_numpy(fresh.azimuth[index]))
    return {
        "judge, fresh renders: kind and colour": float(named_right(verdict, names).float().mean()),
        "judge, fresh renders: view": float(seen_right[sided].float().mean()),
        "judge: impostors seen through": float((judge.judge(lures).name < 0).float().mean()),
    }


def evaluate_small_encoder(config: Config, prior: LatentPrior) -> dict[str, float]:
    likeness = compare(prior, config, HELD_OUT[::8])
    return {
        "small encoder, half-made held-out toys: error of the latents, RMS": likeness.error,
        "the same, of their standard deviation": likeness.spread,
        "small encoder, half-made held-out toys: cosine of the gradients in pixels": likeness.cosine,
        "small encoder: processor time of the autoencoder's, with the way back": likeness.cost,
    }


def asked(prior: LatentPrior, texts: Sequence[str], azimuth: Tensor) -> Conditioning:
    """Return the conditions of views at azimuth [B] of B texts, without view words.

    For a prior that sees several views at once, those of a text follow each other.
    """
    if prior.views_per_set > 1:
        texts = texts[:: prior.views_per_set]
        cameras = camera_matrices(azimuth, torch.full_like(azimuth, POLAR))
        rows = prior.embed([*texts, *[""] * len(texts)]).seen_by(
            cameras.unflatten(0, (-1, prior.views_per_set)).repeat(2, 1, 1)
        )
        positive, empty = (rows.rows(part) for part in torch.arange(len(rows)).chunk(2))
        return Conditioning(positive, empty, empty)
    told = [f"{text}, {words}" for text in texts for words in VIEW_WORDS]
    embedded = prior.embed([*told, ""])
    weights = torch.block_diag(*view_weights(azimuth)[:, None])
    empty = embedded[len(told)].expand(len(texts))
    return Conditioning(embedded.rows(torch.arange(len(told))).mixed(weights), empty, empty)


@torch.no_grad()
def samples(prior: LatentPrior, conditioning: Conditioning, seed: int = 0) -> Tensor:
    """Images [B, 3, H, W] of what a prior is asked for: 50 steps of DDIM, or of Euler for a flow; guidance scale 5."""
    schedule, denoiser, count = prior.schedule, Denoiser(prior), len(conditioning.positive)
    z = torch.randn(count, *prior.latents, generator=torch.Generator().manual_seed(seed))
    first = 981 if schedule.variance_preserving else schedule.num_timesteps
    times = [*range(first, 0, -20), CLEAN]
    for start, end in pairwise(times):
        t, u = torch.full((count,), start), torch.full((count,), end)
        z = step(z, denoiser.guided(z, t, conditioning, 5.0).prediction, t, u, schedule)
    return prior.decode(z)


def azimuths_of(prior: LatentPrior) -> tuple[float, ...]:
    """Return the azimuths from which a prior's samples are judged."""
    return VIEWS if prior.views_per_set == 1 else RING


@dataclass(frozen=True)
class Found:
    """Samples of a toy from each of `azimuths_of` the prior, [views, 3, H, W], and for each whether toy and view are right."""

    name: Name
    images: Tensor
    named: Tensor
    seen: Tensor


def sample_toys(prior: LatentPrior, judge: Judge, names: Sequence[Name]) -> list[Found]:
    found = []
    azimuth = torch.tensor(azimuths_of(prior))
    for seed, name in enumerate(tqdm(names, desc="samples", unit="toy")):
        images = samples(prior, asked(prior, [caption(name)] * len(azimuth), azimuth), seed)
        verdict = judge.judge(images)
        right = named_right(verdict, [name] * len(azimuth))
        found.append(Found(name, images, right, view_right(verdict, azimuth)))
    return found


def prior_scores(found: Sequence[Found]) -> dict[str, float]:
    def named(table: bool, held_out: bool) -> float:
        chosen = [
            toy.named
            for toy in found
            if (toy.name.on is not None) == table and (toy.name in HELD_OUT) == held_out
        ]
        return float(torch.cat(chosen).float().mean())

    sided = [toy.seen for toy in found if toy.name.on is None and toy.name.kind not in FACELESS]
    return {
        "samples, trained toys: kind and colour": named(False, False),
        "samples, held-out toys: kind and colour": named(False, True),
        "samples, trained toys on tables: kind and colours": named(True, False),
        "samples, held-out toys on tables: kind and colours": named(True, True),
        "samples: view": float(torch.cat(sided).float().mean()),
    }


def sheet(found: Sequence[Found]) -> Tensor:
    """Sheet of a trained toy and a held-out one (marked `*`) of each kind, alone and on a table, from VIEWS."""
    shown: dict[tuple[str, bool, bool], Found] = {}
    for toy in found:
        shown.setdefault((toy.name.kind, toy.name.on is not None, toy.name in HELD_OUT), toy)
    picked = sorted(shown.values(), key=found.index)
    labels = [f"{caption(toy.name)}{' *' if toy.name in HELD_OUT else ''}" for toy in picked for _ in VIEWS]
    return contact_sheet(
        torch.cat([toy.images[: len(VIEWS)] for toy in picked]), columns=4 * len(VIEWS), labels=labels
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.lab.evaluate", description=__doc__)
    parser.add_argument(
        "--opt", default="config/quickstart.yaml", help="where cameras and backgrounds come from"
    )
    parser.add_argument(
        "--prior", choices=TOY_PRIORS, default=TOYBOX, help="prior whose samples are judged (default: toybox)"
    )
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet of the prior's samples")
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    ours, judge = arguments.prior == TOYBOX, load_judge()
    flags = ["--model_key", arguments.prior, "--encoder", "small" if ours else "full"]
    config = configuration.load(["--opt", arguments.opt, *flags])
    prior = guidance.prior.load_prior(config, torch.device("cpu"))
    scores = evaluate_judge(config, judge) | evaluate_small_encoder(config, prior) if ours else {}
    found = sample_toys(prior, judge, [*ALONE, *STACKED[::STACKED_EVERY]])
    if arguments.sheet is not None:
        write_jpeg(arguments.sheet, sheet(found), quality=70)
    print("| what | share |\n|---|---|")
    print("\n".join(f"| {name} | {value:.1%} |" for name, value in (scores | prior_scores(found)).items()))


if __name__ == "__main__":
    main()
