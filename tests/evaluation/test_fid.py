"""FID from views to number, against a few lines; a small network stands in for Inception."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from config import Config
from evaluation.assets import Asset, ScoredAsset
from evaluation.scorers.fid import FidScorer, prior_images
from guidance.prior import PriorError
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from tests.tiny_diffusers import write_tiny_folder
from utils.media import read_image, write_png

HOST = torch.device("cpu")


class Corners(nn.Module):
    """Features [B, 6]: mean colours of the upper and the lower half."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.gain.detach() * images.unflatten(2, (2, -1)).mean(dim=(3, 4)).flatten(1)


def pictures(count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.rand(count, 3, 2, 1, generator=rng).repeat_interleave(4, 2).expand(-1, -1, -1, 8) * 255
    ).round() / 255


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for index, image in enumerate(pictures(40, seed=0)):
        write_png(tmp_path / f"{index}.png", image)
    return [tmp_path / f"{index}.png" for index in range(40)]


def few_lines(a: np.ndarray, b: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))


def scored(scorer: FidScorer, views: Tensor) -> ScoredAsset:
    nothing = GaussianModel.from_points(torch.eye(4, 3), torch.zeros(4, 3), 0)
    scores = scorer.score(Asset(nothing, "a mug", Config()), views)
    assert not scores.numbers
    assert scores.features is not None
    return ScoredAsset("a mug", Config(), scores.features)


def test_all_views_of_a_set_are_compared_with_the_prior_s_images(files: list[Path]) -> None:
    scorer = FidScorer(Corners(), lambda: files, HOST)
    assets = [pictures(35, seed=1), 0.5 * pictures(20, seed=2)]
    found = scorer.score_set([scored(scorer, views) for views in assets])
    drawn, real = (
        (2 * images.unflatten(2, (2, -1)).mean(dim=(3, 4)).flatten(1)).double().numpy()
        for images in (torch.cat(assets), torch.stack([read_image(file) for file in files]))
    )
    assert found == {"fid": pytest.approx(few_lines(drawn, real), rel=1e-4)}


def test_the_prior_s_features_are_found_once_for_each_network(files: list[Path]) -> None:
    asset = scored(FidScorer(Corners(), lambda: files, HOST), pictures(30, seed=1))
    before = FidScorer(Corners(), lambda: files, HOST).score_set([asset])
    for file in files:
        write_png(file, torch.zeros(3, 8, 8))
    assert FidScorer(Corners(), lambda: files, HOST).score_set([asset]) == before
    assert FidScorer(Corners(), lambda: files[:-1], HOST).score_set([asset]) != before
    other = Corners()
    nn.init.constant_(other.gain, 3.0)
    assert FidScorer(other, lambda: files, HOST).score_set([asset]) != before


def test_the_prior_s_images_are_those_of_its_weights(tmp_path: Path) -> None:
    config = changed(Config(), model_key=str(write_tiny_folder(tmp_path / "prior")))
    first = prior_images(config, ["a cat", "a dog", "a cat"], HOST)
    assert first == prior_images(config, ["a cat", "a dog"], HOST)
    write_tiny_folder(tmp_path / "prior", seed=1)
    assert prior_images(config, ["a cat", "a dog"], HOST) != first


def test_a_prior_that_is_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="model_key"):
        prior_images(changed(Config(), model_key=str(tmp_path)), ["a cat"], HOST)


def test_images_are_made_when_they_are_needed(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> list[Path]:
        made.append(1)
        return [tmp_path / "none.png"]

    scored(FidScorer(Corners(), make, HOST), pictures(3, seed=0))
    assert not made
