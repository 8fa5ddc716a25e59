"""Images of the prior against diffusers' own sampler, and as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from evaluation.prior_images import PriorImages, samples
from guidance import view_weights
from guidance.prior import StableDiffusionPrior
from guidance.prompts import VIEW_WORDS
from tests.guidance.prior.texts import embedded, noise_by
from tests.tiny_diffusers import write_scheduler, write_tiny_folder
from utils.media import read_image

PROMPTS = ("a cat", "a dog", "a mug")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), torch.device("cpu"))


def by_diffusers(prior: StableDiffusionPrior, folder: Path, cond: Tensor, seed: int, scale: float) -> Tensor:
    """Image [3, H, W] by the scheduler's own steps, with one network call for each condition."""
    # Its default ends at the noise level of t = 0 in place of a clean sample.
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", set_alpha_to_one=True)
    scheduler.set_timesteps(50)
    empty = embedded(prior, [""])
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for t in scheduler.timesteps:
            with_text, without = (noise_by(prior, z, t[None], c) for c in (cond, empty))
            z = scheduler.step(without + scale * (with_text - without), t, z).prev_sample
        return prior.decode(z)[0]


@pytest.mark.parametrize("scale", [pytest.param(1.0, marks=pytest.mark.thorough), 7.5])
def test_samples_are_those_of_diffusers(prior: StableDiffusionPrior, folder: Path, scale: float) -> None:
    found = samples(prior, PROMPTS[:2], [5, 6], scale)
    for image, prompt, seed in zip(found, PROMPTS, (5, 6)):
        expected = by_diffusers(prior, folder, embedded(prior, [prompt]), seed, scale)
        torch.testing.assert_close(image, expected, atol=1e-3, rtol=0)
    assert not torch.allclose(found[0], found[1], atol=0.05)


def test_times_are_those_of_the_scheduler_s_file(tmp_path: Path) -> None:
    """Without an offset they begin at 0."""
    write_scheduler(write_tiny_folder(tmp_path) / "scheduler", "epsilon", steps_offset=0)
    prior = StableDiffusionPrior.load(str(tmp_path), torch.device("cpu"))
    expected = by_diffusers(prior, tmp_path, embedded(prior, ["a mug"]), 5, 7.5)
    torch.testing.assert_close(samples(prior, ["a mug"], [5], 7.5)[0], expected, atol=1e-3, rtol=0)


def test_views_are_asked_for_in_the_training_loop_s_words(prior: StableDiffusionPrior, folder: Path) -> None:
    azimuth = torch.tensor([0.0, 50.0])
    found = samples(prior, ["a cat", "a dog"], [1, 2], 3.0, azimuth)
    weights = view_weights(azimuth)
    # All views of a prompt in one call, as a run embeds them: long prompts are cut in the same place.
    cat, dog = (embedded(prior, [prompt + words for words in VIEW_WORDS]) for prompt in ("a cat", "a dog"))
    cond = (weights[1, :, None, None] * dog).sum(dim=0, keepdim=True)
    torch.testing.assert_close(found[0], by_diffusers(prior, folder, cat[:1], 1, 3.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], by_diffusers(prior, folder, cond, 2, 3.0), atol=1e-3, rtol=0)


def images(prompts: tuple[str, ...] = PROMPTS) -> PriorImages:
    return PriorImages("tiny", "1", prompts, scale=2.0)


@pytest.mark.thorough
def test_each_image_is_that_of_its_number(prior: StableDiffusionPrior, tmp_path: Path) -> None:
    """Images are the same whether all are made at once or the missing ones later."""
    loads = []

    def load() -> StableDiffusionPrior:
        loads.append(1)
        return prior

    whole = images().make(tmp_path / "whole", 10, load)
    first = images().make(tmp_path / "parts", 4, load)
    first[1].unlink()
    assert images().missing(tmp_path / "parts", 10) == [1, *range(4, 10)]
    parts = images().make(tmp_path / "parts", 10, load)
    assert [path.name for path in parts] == [path.name for path in whole]
    for one, other in zip(whole, parts):
        # One level of 255: sums in batches of other sizes round differently.
        torch.testing.assert_close(read_image(one), read_image(other), atol=1.01 / 255, rtol=0)
    assert not torch.allclose(read_image(whole[0]), read_image(whole[3]), atol=0.05), "the same prompt again"
    images().make(tmp_path / "whole", 7, load)
    assert len(loads) == 3, "nothing was missing, but the prior was loaded"


def test_other_prompts_have_another_folder(tmp_path: Path) -> None:
    assert images().folder(tmp_path) == images().folder(tmp_path)
    assert images().folder(tmp_path) != images(PROMPTS[:2]).folder(tmp_path)
