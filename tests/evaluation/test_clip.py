"""CLIP score and R-Precision against torchmetrics and a few lines, with a tiny CLIP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchmetrics.functional.multimodal import clip_score

from config import Config
from evaluation.assets import Asset
from evaluation.scorers import ScorerError, ScorerOptions
from evaluation.scorers.clip import ClipScorer
from evaluation.scorers.pixels import clip_pixels
from guidance.prior.clip import MEAN, STD
from scene.gaussian_model import GaussianModel
from tests.evaluation.published import TINY_CLIP, write_clip

HOST = torch.device("cpu")
PROMPTS = ("a red car", "a photo of a blue mug", "a house", "a red car")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"), TINY_CLIP)


def load(folder: Path, prompts: tuple[str, ...] = PROMPTS) -> ClipScorer:
    return ClipScorer.load(replace(ScorerOptions(), clip=str(folder)), prompts, Config(), HOST)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClipScorer:
    return load(folder)


@pytest.fixture(scope="module")
def views() -> Tensor:
    """Views of 8 bits, as pictures are: random colours in large tiles, so that they differ from one another."""
    tiles = torch.rand(21, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    return (tiles.repeat_interleave(13, 2).repeat_interleave(13, 3) * 255).round() / 255


def asset(prompt: str) -> Asset:
    nothing = GaussianModel.from_points(torch.eye(4, 3), torch.zeros(4, 3), 0)
    return Asset(nothing, prompt, Config())


def by_pillow(image: Tensor, size: int) -> np.ndarray:
    """Picture [3, size, size] that CLIP's own pipeline makes of an image."""
    picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    short = min(picture.size)
    scaled = [size * side // short for side in picture.size]
    picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    left, top = ((side - size) // 2 for side in scaled)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float64) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(50, 50), (64, 40), (20, 31), (32, 32)])
def test_pixels_are_those_of_pillow(height: int, width: int) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    ours, theirs = clip_pixels(image[None], 32)[0].numpy(), by_pillow(image, 32)
    # One level of 255, where the two round differently.
    assert np.abs(ours - theirs).max() <= 1.01 / 255 / min(STD)
    assert np.abs(ours - theirs).mean() < 0.1 / 255 / min(STD)


class Adapter:
    """The scorer's model with torchmetrics' interface: features as tensors."""

    def __init__(self, scorer: ClipScorer) -> None:
        self.model, self.config = scorer.model, scorer.model.config

    def to(self, device: torch.device) -> Adapter:
        return self

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output


def test_the_score_is_torchmetrics_s(scorer: ClipScorer, views: Tensor) -> None:
    def processor(images: Any = None, text: Any = None, **_: Any) -> dict[str, Tensor]:
        if images is not None:
            return {"pixel_values": torch.from_numpy(np.stack([by_pillow(i, 32) for i in images])).float()}
        return dict(scorer.tokenizer(text, padding=True, return_tensors="pt"))

    for prompt in dict.fromkeys(PROMPTS):
        with torch.no_grad():
            expected = clip_score(list(views), [prompt] * len(views), lambda: (Adapter(scorer), processor))
        found = scorer.score(asset(prompt), views).numbers["clip_score"]
        assert found == pytest.approx(float(expected), abs=0.05)


def test_score_and_precision_are_those_of_a_few_lines(scorer: ClipScorer, views: Tensor) -> None:
    pool = list(dict.fromkeys(PROMPTS))
    with torch.no_grad():
        images = scorer.model.get_image_features(clip_pixels(views, 32)).pooler_output.double()
        texts = torch.cat(
            [
                scorer.model.get_text_features(**scorer.tokenizer(p, return_tensors="pt")).pooler_output
                for p in pool
            ]
        ).double()
    cosines = torch.tensor([[float(i @ t / i.norm() / t.norm()) for t in texts] for i in images])
    shares = [float((cosines.argmax(dim=1) == own).double().mean()) for own in range(len(pool))]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 1, "the views should not all be nearest to one caption"
    for own, prompt in enumerate(pool):
        numbers = scorer.score(asset(prompt), views).numbers
        assert numbers["clip_r_precision"] == pytest.approx(shares[own])
        assert numbers["clip_score"] == pytest.approx(max(0.0, 100 * float(cosines[:, own].mean())), abs=1e-3)


def test_a_negative_cosine_scores_zero(
    scorer: ClipScorer, views: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "captions", -scorer.embed_images(views[:1]).expand(3, -1))
    assert scorer.score(asset(PROMPTS[0]), views[:1]).numbers["clip_score"] == 0


def test_one_prompt_alone_has_no_precision(folder: Path, views: Tensor) -> None:
    assert set(load(folder, ("a house",)).score(asset("a house"), views).numbers) == {"clip_score"}


def test_the_identity_tells_pools_and_weights_apart(folder: Path, scorer: ClipScorer, tmp_path: Path) -> None:
    assert load(folder).identity == scorer.identity
    assert load(folder, PROMPTS[:2]).identity != scorer.identity
    other = copied(folder, tmp_path, lambda weights: weights["visual_projection.weight"].mul_(1.01))
    assert load(other).identity != scorer.identity


def copied(folder: Path, to: Path, change: Any) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_weights_that_lack_some_are_refused(folder: Path, tmp_path: Path) -> None:
    other = copied(folder, tmp_path, lambda weights: weights.pop("visual_projection.weight"))
    with pytest.raises(ScorerError, match=r"^clip is '.*', but it lacks visual_projection.weight\.$"):
        load(other)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ScorerError, match=r"^clip is '.*', which cannot be loaded \(.*\); give a local path\.$"
    ):
        load(tmp_path)
