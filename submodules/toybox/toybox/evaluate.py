"""`python -m toybox.evaluate`: the judge on fresh renders and the prior's samples, as a table.

Run in the root of the project's checkout.
"""

from __future__ import annotations

import argparse
import logging
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import config as configuration
import guidance
from config import Config
from guidance import Conditioning, Denoiser, StableDiffusionPrior, view_weights
from guidance.schedule import CLEAN, Schedule
from guidance.solver import step
from toybox.captions import HELD_OUT, PAIRS, VIEW_WORDS, caption
from toybox.judge import Judge, Verdict, load_judge, named_right
from toybox.renders import collect, toys
from toybox.train_judge import impostors
from utils.media import contact_sheet, write_png

VIEWS = (0.0, 90.0, 180.0)


def view_right(verdict: Verdict, azimuth: Tensor) -> Tensor:
    """[B] bool: front, side or back as asked; which side does not count, for prompts cannot say it."""
    return ((verdict.azimuth.abs() - azimuth.abs()).abs() < 45) & (verdict.kind >= 0)


def evaluate_judge(config: Config, judge: Judge, seed: int = 99) -> dict[str, float]:
    rng = torch.Generator().manual_seed(seed)
    fresh = collect(config, toys(PAIRS), 16, rng, label="fresh renders")
    wrong = collect(config, impostors(), 8, rng, label="impostors")
    _, clutter = wrong.draw(384, config.model, rng)
    index, images = fresh.draw(768, config.model, rng)
    verdict = judge.judge(images)
    pairs = [PAIRS[i] for i in fresh.pair[index]]
    # A mushroom looks the same from all sides.
    sided = torch.tensor([kind != "mushroom" for kind, _ in pairs])
    seen_right = view_right(verdict, torch.from_numpy(fresh.azimuth[index]))
    return {
        "kind and colour of fresh renders": float(named_right(verdict, pairs).float().mean()),
        "view of fresh renders": float(seen_right[sided].float().mean()),
        "impostors seen through": float((judge.judge(clutter).kind < 0).float().mean()),
    }


@torch.no_grad()
def samples(
    prior: StableDiffusionPrior, pairs: list[tuple[str, str]], azimuth: Tensor, seed: int = 0
) -> Tensor:
    """Images [B, 3, H, W] of toys seen from azimuth [B]: DDIM with 50 steps, guidance scale 5."""
    schedule = Schedule(prior.alphas_cumprod)
    texts = [caption(*pair) + ", " + words for pair in pairs for words in VIEW_WORDS]
    by_view = prior.embed(texts).unflatten(0, (len(pairs), len(VIEW_WORDS)))
    cond = torch.einsum("bk,bkld->bld", view_weights(azimuth), by_view)
    empty = prior.embed([""]).expand(len(pairs), -1, -1)
    conditioning, denoiser = Conditioning(cond, empty, empty), Denoiser(prior)
    size = prior.image_size // 8
    z = torch.randn(len(pairs), 4, size, size, generator=torch.Generator().manual_seed(seed))
    times = [*range(981, 0, -20), CLEAN]
    for start, end in pairwise(times):
        t, u = torch.full((len(pairs),), start), torch.full((len(pairs),), end)
        z = step(z, denoiser.guided(z, t, conditioning, 5.0).eps, t, u, schedule)
    return prior.decode(z)


def evaluate_prior(prior: StableDiffusionPrior, judge: Judge, sheet: Path | None) -> dict[str, float]:
    named, seen, held, sided = [], [], [], []
    pictures = []
    for pair in tqdm(PAIRS, desc="samples", unit="pair"):
        azimuth = torch.tensor(VIEWS * 2)
        images = samples(prior, [pair] * len(azimuth), azimuth, seed=PAIRS.index(pair))
        verdict = judge.judge(images)
        named.append(named_right(verdict, [pair] * len(azimuth)).float())
        seen.append(view_right(verdict, azimuth).float())
        held.append(torch.full((len(azimuth),), pair in HELD_OUT))
        sided.append(torch.full((len(azimuth),), pair[0] != "mushroom"))
        pictures.append(images[: len(VIEWS)])
    if sheet is not None:
        labels = [f"{caption(*pair)}{' *' if pair in HELD_OUT else ''}" for pair in PAIRS for _ in VIEWS]
        write_png(sheet, contact_sheet(torch.cat(pictures), columns=6 * len(VIEWS), labels=labels))
    names, views, unseen = torch.cat(named), torch.cat(seen), torch.cat(held)
    return {
        "samples of trained pairs: kind and colour": float(names[~unseen].mean()),
        "samples of held-out pairs: kind and colour": float(names[unseen].mean()),
        "samples: view": float(views[torch.cat(sided)].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.evaluate", description=__doc__)
    parser.add_argument(
        "--opt", default="config/quickstart.yaml", help="where cameras and backgrounds come from"
    )
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet of the prior's samples")
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    config, judge = configuration.load(["--opt", arguments.opt]), load_judge()
    scores = evaluate_judge(config, judge)
    prior = guidance.load_prior(config, torch.device("cpu"))
    scores |= evaluate_prior(prior, judge, arguments.sheet)
    print("| what | share |\n|---|---|")
    print("\n".join(f"| {name} | {value:.1%} |" for name, value in scores.items()))


if __name__ == "__main__":
    main()
