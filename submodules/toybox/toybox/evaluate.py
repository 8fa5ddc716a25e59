"""`python -m toybox.evaluate`: the judge on renders, the prior's samples, and assets from text, as tables.

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

import guidance
from config import Config
from gaussian_renderer.showcase import show
from guidance import Conditioning, Denoiser, StableDiffusionPrior, view_weights
from guidance.schedule import CLEAN, Schedule
from guidance.solver import step
from scene.cameras import turntable
from toybox.assess import Assessment, assess
from toybox.captions import HELD_OUT, PAIRS, VIEW_WORDS, caption, parse
from toybox.judge import Judge, Verdict, load_judge, named_right
from toybox.renders import collect, toys
from toybox.runs import lean_config, machine
from toybox.start_settings import START_NAMES, start_settings
from toybox.train_judge import impostors
from train import train
from utils.media import contact_sheet, write_png

PROMPTS = (
    ("mushroom", "red"), ("snowman", "blue"), ("mug", "purple"), ("car", "yellow"), ("rocket", "purple"),
    ("house", "orange"), ("duck", "green"), ("chair", "red"), ("car", "blue"), ("mushroom", "orange"),
)  # fmt: skip
"""Every kind, every colour, and three pairs that training never saw."""
SHEET_VIEWS = 8
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


def evaluate_assets(
    opt: str, judge: Judge, prompts: list[str], method: str, start: str, sheet: Path | None
) -> list[tuple[Assessment, float]]:
    """One run of `train` for every prompt: what the judge says and the seconds of the loop."""
    results, pictures = [], []
    for prompt in prompts:
        settings = {"workspace": "evaluate", "text": prompt, "guidance_type": method}
        config = lean_config(opt, {**settings, **start_settings(start, prompt, seed=0)})
        result = train(config)
        assessment = assess(result.gaussians, prompt, config, judge)
        print(f"{method}, {start} start, {result.seconds:.0f} s: {assessment}", flush=True)
        results.append((assessment, result.seconds))
        pictures.append(show(result.gaussians, turntable(config.camera, SHEET_VIEWS), white=True).rgb)
    if sheet is not None:
        labels = []
        for assessment, _ in results:
            mark = " *" if parse(assessment.prompt) in HELD_OUT else ""
            labels += [assessment.prompt + mark, f"{assessment.recognised:.0%}"] + [""] * (SHEET_VIEWS - 2)
        write_png(sheet, contact_sheet(torch.cat(pictures), columns=SHEET_VIEWS, labels=labels, gap=0))
    return results


def asset_table(rows: list[tuple[str, str, list[tuple[Assessment, float]]]]) -> str:
    """Markdown: a line for each guidance and start, means over the prompts, then a line for each prompt."""
    lines = [
        "| guidance | start | prompts recognised (≥ 75% of 120 views) | views recognised | Janus | PSNR | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, start, results in rows:
        count = len(results)
        passed = sum(a.recognised >= 0.75 for a, _ in results)
        views, janus, psnr = (
            sum(getattr(a, name) for a, _ in results) / count for name in ("recognised", "janus", "psnr")
        )
        seconds = sorted(seconds for _, seconds in results)[count // 2]
        lines.append(
            f"| {method} | {start} | {passed} of {count} | {views:.0%} | {janus:.0%} | {psnr:.1f} dB | {seconds:.0f} |"
        )
    lines += [
        "",
        "| prompt | " + " | ".join(f"{method}, {start}" for method, start, _ in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
    ]
    for index, (first, _) in enumerate(rows[0][2]):
        cells = [results[index][0].short for _, _, results in rows]
        mark = " (held out)" if parse(first.prompt) in HELD_OUT else ""
        lines.append(f"| {first.prompt}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.evaluate", description=__doc__)
    parser.add_argument("--opt", default="config/quickstart.yaml", help="the configuration of the runs")
    parser.add_argument("--guidances", nargs="*", default=["sctd", "sds"], help="none of them: no assets")
    parser.add_argument("--starts", nargs="+", default=["pointe", "sphere"], choices=START_NAMES)
    parser.add_argument("--prompts", nargs="+", default=[caption(*pair) for pair in PROMPTS])
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of samples and assets")
    parser.add_argument("--skip_prior", action="store_true", help="assets only")
    arguments = parser.parse_args()
    logging.getLogger("config").setLevel(logging.ERROR)
    base, judge = lean_config(arguments.opt, {"workspace": "evaluate"}), load_judge()
    sheets = arguments.sheets

    if not arguments.skip_prior:
        scores = evaluate_judge(base, judge)
        prior = guidance.load_prior(base, torch.device("cpu"))
        scores |= evaluate_prior(prior, judge, sheets and sheets / "samples.png")
        print(
            "\n".join(
                [
                    "| what | share |",
                    "|---|---|",
                    *(f"| {name} | {value:.1%} |" for name, value in scores.items()),
                ]
            )
        )
    rows = [
        (
            method,
            start,
            evaluate_assets(
                arguments.opt,
                judge,
                arguments.prompts,
                method,
                start,
                sheets and sheets / f"{method}-{start}.png",
            ),
        )
        for start in arguments.starts
        for method in arguments.guidances
    ]
    if rows:
        print(machine())
        print(asset_table(rows))


if __name__ == "__main__":
    main()
