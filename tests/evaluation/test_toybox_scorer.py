"""The scorer of toybox on the true toys, and on worse ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from config import load
from evaluation.assets import Asset, ScoredAsset
from evaluation.scorers import ScorerError, ScorerOptions
from evaluation.scorers.toybox import ToyboxScorer
from gaussian_renderer import Gaussians
from gaussian_renderer.showcase import NUM_VIEWS, show, views_of
from scene.cameras import turntable
from tests.changed import changed
from toybox.captions import ALONE
from toybox.judge import load_judge
from toybox.lab.assess import assess
from toybox.splats import canonical, worn
from toybox.world import Name

CONFIG = changed(load(["--opt", "config/quickstart.yaml"]), image_w=32, image_h=32)
HOST = torch.device("cpu")
PROMPT = "a red house"


def scorer(folder: Path) -> ToyboxScorer:
    return ToyboxScorer(load_judge(), fid_images=len(ALONE), folder=folder)


def seen(gaussians: Gaussians) -> ScoredAsset:
    images = show(gaussians, turntable(CONFIG.camera, NUM_VIEWS), white=True).rgb
    return ScoredAsset(PROMPT, CONFIG, load_judge().features(images).numpy())


def test_numbers_are_those_of_assess(tmp_path: Path) -> None:
    by, shabby = (
        scorer(tmp_path),
        worn(canonical(Name("house", "red")), torch.Generator().manual_seed(0), 1.0),
    )
    views = views_of(shabby, CONFIG)
    found, expected = by.score(Asset(shabby, PROMPT, CONFIG), views), assess(shabby, PROMPT, CONFIG)
    assert found.numbers == {column.key: getattr(expected, column.key) for column in by.columns}
    assert found.features is not None
    assert np.array_equal(found.features, seen(shabby).features)


def test_the_views_that_are_given_are_judged(tmp_path: Path) -> None:
    """Views are not rendered a second time."""
    house = canonical(Name("house", "red"))
    white = torch.ones(NUM_VIEWS, 3, CONFIG.camera.image_h, CONFIG.camera.image_w)
    assert assess(house, PROMPT, CONFIG).recognised == 1
    assert scorer(tmp_path).score(Asset(house, PROMPT, CONFIG), white).numbers["recognised"] == 0


@pytest.mark.thorough
def test_worse_toys_are_farther_from_the_true_ones(tmp_path: Path) -> None:
    by, toy = scorer(tmp_path), canonical(Name("house", "red"))
    true, far = seen(toy), seen(worn(toy, torch.Generator().manual_seed(0), 1.0))
    near, away = by.score_set([true, true]), by.score_set([far])
    assert near["judge_fid"] == pytest.approx(0, abs=1e-3 * away["judge_fid"])
    # One toy is not all of them.
    assert near["judge_fid_all_toys"] > away["judge_fid"] / 100
    [kept] = tmp_path.glob("*.npz")
    stamp = kept.stat().st_mtime_ns
    assert scorer(tmp_path).score_set([true, true]) == near
    assert kept.stat().st_mtime_ns == stamp


def test_prompts_of_another_world_are_told() -> None:
    with pytest.raises(ScorerError, match=r"^'a plush dragon' .*\.$"):
        ToyboxScorer.load(ScorerOptions(), ["a red house", "a plush dragon"], CONFIG, HOST)
