"""toybox's scorer on the true toys, and on worse ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from config import Config, load
from evaluation.assets import Asset, ScoredAsset
from evaluation.scorers import ScorerError, ScorerOptions
from evaluation.scorers.toybox import ToyboxScorer
from evaluation.views import views_of
from gaussian_renderer import Gaussians
from tests.changed import changed
from toybox.assess import assess
from toybox.judge import load_judge
from toybox.splats import canonical, worn
from toybox.world import COLORS, KINDS

CONFIG = changed(load(["--opt", "config/quickstart.yaml"]), image_w=64, image_h=64)
HOST = torch.device("cpu")
PROMPT = "a red house"


def scorer(folder: Path) -> ToyboxScorer:
    return ToyboxScorer(load_judge(), fid_images=len(KINDS) * len(COLORS), folder=folder)


def scored(by: ToyboxScorer, gaussians: Gaussians, config: Config = CONFIG) -> ScoredAsset:
    found = by.score(Asset(gaussians, PROMPT, config), views_of(gaussians, config, 2))
    assert set(found.numbers) == {column.key for column in by.columns}
    assert found.features is not None
    return ScoredAsset(PROMPT, config, found.features)


def test_numbers_are_those_of_assess_and_worse_toys_are_farther(tmp_path: Path) -> None:
    by, toy = scorer(tmp_path), canonical("house", "red")
    shabby = worn(toy, torch.Generator().manual_seed(0), 1.0)
    true, far = scored(by, toy), scored(by, shabby)
    expected = assess(shabby, PROMPT, CONFIG)
    numbers = by.score(Asset(shabby, PROMPT, CONFIG), torch.empty(0)).numbers
    assert numbers == {column.key: getattr(expected, column.key) for column in by.columns}

    near, away = by.score_set([true]), by.score_set([far])
    assert near["judge_fid"] == pytest.approx(0, abs=1e-3)
    assert away["judge_fid"] > 1
    # One toy is not all of them.
    assert near["judge_fid_all_toys"] > 1
    assert by.score_set([true, true])["judge_fid"] == pytest.approx(0, abs=1e-3)
    [kept] = tmp_path.glob("*.npz")
    stamp = kept.stat().st_mtime_ns
    assert scorer(tmp_path).score_set([true]) == near
    assert kept.stat().st_mtime_ns == stamp


def test_prompts_of_another_world_are_told() -> None:
    with pytest.raises(ScorerError, match=r"^'a plush dragon' .*\.$"):
        ToyboxScorer.load(ScorerOptions(), ["a red house", "a plush dragon"], CONFIG, HOST)
