"""The shipped weights: their size, the judge's eye, what the prior draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import config as configuration
from config.guidance_params import TOY_PRIORS
from gaussian_renderer.showcase import show
from guidance.prior import StableDiffusionPrior, load_prior
from scene.cameras import orbit
from toybox import splats, weights_path
from toybox.captions import ALONE, HELD_OUT, NAMES, STACKED, caption
from toybox.judge import Judge, load_judge, named_right
from toybox.lab.encoders import compare
from toybox.lab.evaluate import asked, azimuths_of, samples, view_right
from toybox.world import FACELESS, Name
from utils.device import resolve_device


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="module")
def prior() -> StableDiffusionPrior:
    return StableDiffusionPrior.load("toybox", resolve_device("cpu"))


AZIMUTHS = [0.0, 50.0, 90.0, 180.0, -130.0]
CAMERAS = orbit(AZIMUTHS, 75.0, 4.2, 0.48, 128, 128)


MOST = {"flow": 6e6, "multiview": 8e6, "controlnet_depth": 3e6, "image_prompt": 3e6}
"""Largest sizes of folders, in bytes."""


def test_all_weights_are_at_most_20_megabytes_and_what_came_later_is_small() -> None:
    sizes = dict.fromkeys([*MOST, "others"], 0)
    for path in weights_path().rglob("*"):
        if path.is_file():
            folder = path.relative_to(weights_path()).parts[0]
            sizes[folder if folder in MOST else "others"] += path.stat().st_size
    for folder, most in {**MOST, "others": 20e6}.items():
        assert 0 < sizes[folder] <= most, folder


@pytest.mark.parametrize("every", [81, pytest.param(9, marks=pytest.mark.thorough)])
def test_the_judge_names_every_toy_and_reads_its_azimuth(judge: Judge, every: int) -> None:
    right, views = [], []
    for name in (*ALONE[:: 1 + (every > 9)], *STACKED[::every]):
        verdict = judge.judge(show(splats.canonical(name), CAMERAS, white=True).rgb)
        right.append(named_right(verdict, [name] * len(AZIMUTHS)))
        if name.kind not in FACELESS:
            views.append(view_right(verdict, torch.tensor(AZIMUTHS)))
    assert float(torch.cat(right).float().mean()) >= 0.98
    assert float(torch.cat(views).float().mean()) >= 0.9


@pytest.mark.parametrize("color", ["red", "blue", "orange"])
def test_the_judge_is_not_fooled_by_the_right_colours(judge: Judge, color: str) -> None:
    rng = torch.Generator().manual_seed(5)
    fooled = [
        splats.blob(splats.canonical(Name("car", color)), rng),
        splats.ring(splats.canonical(Name("car", color)), rng),
        splats.ring(splats.canonical(Name("house", color)), rng),
        splats.lump(color, rng),
        splats.cloud(rng),
    ]
    found = torch.cat([judge.judge(show(gaussians, CAMERAS, white=True).rgb).name for gaussians in fooled])
    assert float((found < 0).float().mean()) >= 0.9


def test_the_autoencoder_reproduces_renders_from_latents_of_unit_scale(prior: StableDiffusionPrior) -> None:
    images = torch.cat([show(splats.canonical(name), CAMERAS, white=True).rgb for name in NAMES[::97]])
    with torch.no_grad():
        latents = prior.encode(images)
        again = prior.decode(latents)
    assert 0.7 < float(latents.std()) < 1.4
    assert float(-10 * (again - images).square().mean().log10()) > 25


def test_the_small_encoder_stands_in_for_the_autoencoder() -> None:
    """Latents and gradients in pixels agree on half-made toys that training never saw; its own decoder knows the latents."""
    folder = weights_path() / "small_encoder"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 0.5e6
    prior = StableDiffusionPrior.load("toybox", resolve_device("cpu"), small_encoder=True)
    likeness = compare(prior, configuration.load(["--text", "a toy"]), HELD_OUT[::60], views=2)
    assert likeness.error < 0.2
    assert likeness.cosine > 0.8
    images = show(splats.canonical(NAMES[0]), CAMERAS, white=True).rgb
    with torch.no_grad():
        again = (
            prior.small_encoder.decode(prior.small_encoder.encode(2 * images - 1).latents).sample / 2 + 0.5
        )
    assert float(-10 * (again - images).square().mean().log10()) > 18


@pytest.mark.parametrize(
    "every", [pytest.param(3, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize("key", TOY_PRIORS)
def test_samples_show_what_was_asked_for(key: str, judge: Judge, every: int, tmp_path: Path) -> None:
    flags = ["--model_key", key, "--embeddings", str(tmp_path), "--text", "a red mug"]
    prior = load_prior(configuration.load(flags), resolve_device("cpu"))
    azimuths = azimuths_of(prior)
    names = [name for name in (*ALONE[::13], *STACKED[::101])[::every] for _ in azimuths]
    azimuth = torch.tensor(azimuths).repeat(len(names) // len(azimuths))
    verdict = judge.judge(samples(prior, asked(prior, [*map(caption, names)], azimuth)))
    assert float(named_right(verdict, names).float().mean()) >= 0.8
