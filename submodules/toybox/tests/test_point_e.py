"""Toybox's tiny Point-E: what it makes of prompts, and that its trainer writes what is shipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import point_e
from point_e.models import stage_from_json
from toybox import weights_path
from toybox.captions import HELD_OUT, caption
from toybox.lab import train_point_e
from toybox.point_judge import judge_points
from toybox.world import Name

FOLDER = weights_path() / "point_e"


def test_it_is_small_and_what_the_trainer_describes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 4_000_000
    described = json.loads((FOLDER / "config.json").read_text())
    assert described.keys() == {"base"}
    assert stage_from_json(described["base"]) == train_point_e.BASE


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(Name("duck", "pink", "green"), marks=pytest.mark.thorough),
        pytest.param(HELD_OUT[0], marks=pytest.mark.thorough),
        pytest.param(Name("rocket", "purple"), marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_it_makes_the_toy_that_the_prompt_names(name: Name) -> None:
    pipeline = point_e.load(FOLDER)
    cloud = pipeline.from_text(f"a photo of {caption(name)}", seed=3, progress=False)
    assert cloud.points.shape == (1024, 3)
    verdict = judge_points(cloud.points.double().numpy(), cloud.colors.double().numpy())
    assert verdict.name == name


@pytest.mark.thorough
def test_the_trainer_writes_a_folder_that_point_e_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_point_e, "STEPS", 2)
    monkeypatch.setattr(train_point_e, "POINTS", 512)
    prior = tmp_path / "weights"
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(weights_path() / part, prior / part)
    train_point_e.train_point_e(tmp_path / "work", prior / "point_e", seed=0)
    written = {file.relative_to(prior / "point_e") for file in (prior / "point_e").rglob("*")}
    assert written == {file.relative_to(FOLDER) for file in FOLDER.rglob("*")}
    cloud = point_e.load(prior / "point_e").from_text("a red mug", steps=2, progress=False)
    assert cloud.points.shape == (1024, 3)
    assert bool(torch.isfinite(cloud.points).all())


def test_the_loss_is_that_of_the_noise_alone() -> None:
    """Loss of an untrained model is 1: it predicts 0, and the noise has variance 1."""
    torch.manual_seed(0)
    model = train_point_e.initialised(point_e.transformer.PointTransformer(train_point_e.BASE))
    rng = torch.Generator().manual_seed(0)
    clouds = train_point_e.Clouds().draw([0] * 64, 64, rng)
    clip = torch.zeros(64, train_point_e.TEXT_WIDTH)
    loss, _ = train_point_e.noise_loss(model, train_point_e.BASE, clouds, rng, clip=clip)
    torch.testing.assert_close(loss, torch.tensor(1.0), atol=0.02, rtol=0)
