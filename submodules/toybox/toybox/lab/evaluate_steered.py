"""`python -m toybox.lab.evaluate_steered`: what a ControlNet of depth and an image prompt do to the U-Net's samples, as a table.

Of the toys that stand alone and that training never saw. Run in the root of the project's checkout.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from config.guidance_params import TOYBOX, TOYBOX_DEPTH, TOYBOX_IMAGE
from gaussian_renderer.showcase import show
from guidance import Conditioning
from guidance.prior import StableDiffusionPrior
from guidance.prior.controlnet import find_controls
from guidance.prior.image_prompt_files import find_image_prompt
from guidance.prompts import ImagePrompt
from scene.cameras import orbit
from toybox import splats
from toybox.captions import ALONE, HELD_OUT, caption, colorless
from toybox.judge import load_judge, named_right
from toybox.lab.evaluate import POLAR, VIEWS, asked, samples, view_right
from toybox.lab.models import IMAGE_SIZE, TEXT_WIDTH
from toybox.lab.renders import colors_of, guide_depth_of
from toybox.world import FACELESS, Name
from utils.device import HOST
from utils.media import contact_sheet, write_jpeg, write_png

TOYS = [name for name in ALONE if name in HELD_OUT]
AZIMUTH = torch.tensor(VIEWS)
CAMERAS = orbit([*VIEWS], POLAR, 4.2, 0.48, IMAGE_SIZE, IMAGE_SIZE)
"""The quickstart's."""

Way = Callable[[Name, int], Tensor]
"""Samples [V, 3, H, W] of a toy, by a seed."""


def told(prior: StableDiffusionPrior, text: str) -> Conditioning:
    return asked(prior, [text] * len(AZIMUTH), AZIMUTH)


def by_words(prior: StableDiffusionPrior, phrase: Callable[[Name], str], name: Name, seed: int) -> Tensor:
    return samples(prior, told(prior, phrase(name)), seed)


def by_depth(prior: StableDiffusionPrior, name: Name, seed: int) -> Tensor:
    with torch.no_grad():
        pictures = guide_depth_of(splats.canonical(name), CAMERAS)[:, None, :3]
    return samples(prior, told(prior, caption(name)).shown(pictures), seed)


def by_picture(folder: Path, phrase: Callable[[Name], str], name: Name, seed: int) -> Tensor:
    """Show the prior a picture of the front, in all views alike."""
    picture = folder / "front.png"
    write_png(picture, show(splats.canonical(name), CAMERAS, white=True).rgb[0])
    files = find_image_prompt(str(picture), TOYBOX_IMAGE, TEXT_WIDTH)
    prior = StableDiffusionPrior.load(TOYBOX, HOST, image_prompt=files)
    assert prior.image_tokens is not None
    return samples(prior, ImagePrompt(*prior.image_tokens).beside(told(prior, phrase(name)), AZIMUTH), seed)


def silhouettes(images: Tensor, name: Name) -> Tensor:
    """Overlap [V], intersection over union, of the shapes in samples with the true toy's; a sample's background is the
    median colour of its rim."""
    rim = torch.cat([images[..., :2, :].flatten(2), images[..., -2:, :].flatten(2)], dim=-1)
    background = rim.median(dim=-1).values[..., None, None]
    found = (images - background).abs().amax(dim=1) > 0.12
    true = colors_of(splats.canonical(name), CAMERAS)[:, 3] > 0.5
    return (found & true).sum((1, 2)) / (found | true).sum((1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.lab.evaluate_steered", description=__doc__)
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet of every fourth toy")
    arguments = parser.parse_args()
    controls = find_controls([TOYBOX_DEPTH], (1.0,), (0.0, 1.0))
    plain, steered = (StableDiffusionPrior.load(TOYBOX, HOST, controls=each) for each in (None, controls))

    def uncolored(name: Name) -> str:
        return colorless(caption(name))

    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Way] = {
            "words": partial(by_words, plain, caption),
            "words, and the depth of the true toy": partial(by_depth, steered),
            "words without the colour": partial(by_words, plain, uncolored),
            "words without the colour, and a picture of the front": partial(
                by_picture, Path(folder), uncolored
            ),
            "a picture of the front alone": partial(by_picture, Path(folder), lambda name: ""),
        }
        judge, shown = load_judge(), []
        print("| told by | kind and colour | view | overlap with the true outline |\n|---|---|---|---|")
        for title, way in ways.items():
            named, seen, overlaps = [], [], []
            for seed, name in enumerate(tqdm(TOYS, desc=title, unit="toy")):
                images = way(name, seed)
                verdict = judge.judge(images)
                named.append(named_right(verdict, [name] * len(AZIMUTH)))
                if name.kind not in FACELESS:
                    seen.append(view_right(verdict, AZIMUTH))
                overlaps.append(silhouettes(images, name))
                if seed % 4 == 0:
                    shown.append(images)
            shares = (float(torch.cat(each).float().mean()) for each in (named, seen, overlaps))
            print(f"| {title} | " + " | ".join(f"{share:.1%}" for share in shares) + " |", flush=True)
    if arguments.sheet is not None:
        write_jpeg(
            arguments.sheet, contact_sheet(torch.cat(shown), columns=len(AZIMUTH) * len(TOYS[::4])), 75
        )


if __name__ == "__main__":
    main()
