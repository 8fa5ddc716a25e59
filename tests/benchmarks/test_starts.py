"""Point-E's clouds, judged and shown by benchmarks/starts.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import starts
from evaluation import suite as suites
from evaluation.runs import Archive
from point_e import PointCloud
from toybox.captions import parse
from toybox.world import COLORS, Name, toy

ROOT = Path(__file__).parents[2]


def exact_point_e(turned: bool) -> SimpleNamespace:
    """Return a Point-E that knows the toys' surfaces, as they stand or turned by 90°."""

    def from_text(prompt: str, *, seed: int, progress: bool) -> PointCloud:
        truth = toy(parse(prompt))
        chosen = np.random.default_rng(seed).integers(len(truth.points), size=1024)
        x, y, z = truth.points[chosen].T
        points = np.stack([y, -x, z], axis=1) if turned else truth.points[chosen]
        return PointCloud(torch.from_numpy(points).float(), torch.from_numpy(truth.colors[chosen]).float())

    return SimpleNamespace(from_text=from_text)


@pytest.mark.parametrize("turned", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_clouds_are_judged_as_toys_stand(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_pipeline", lambda: exact_point_e(turned))
    boats = [Name("boat", color) for color in COLORS]
    ducks = [Name("duck", "red", color) for color in COLORS]
    monkeypatch.setattr(starts, "ALONE", boats)
    monkeypatch.setattr(starts, "STACKED", ducks)
    seeds = (0, 1) if turned else (0,)
    lines = [[cell.strip() for cell in text.split("|")[1:5]] for text in starts.table(seeds).splitlines()[2:]]
    share = "0%" if turned else "100%"
    counts = {"alone, trained": 8, "alone, held out": 2, "on a table, trained": 2, "on a table, held out": 1}
    assert lines == [[title, str(count * len(seeds)), share, share] for title, count in counts.items()]


def test_a_sheet_has_a_row_for_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_pipeline", lambda: exact_point_e(False))
    monkeypatch.chdir(ROOT)
    suite = suites.load(starts.SUITE)
    picture = starts.sheet(suite, Archive(outputs=tmp_path))
    assert picture.shape[2] == 3 * 4 * (128 + 2) - 2
    for row in picture.tensor_split(len(suite.prompts), dim=1):
        # Point-E's cloud, and no asset.
        assert float(row[:, -100:, : 4 * 130].min()) < 0.7
        assert float(row[:, -100:, 4 * 130 :].min()) == 1
