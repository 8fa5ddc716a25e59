"""The views that scorers look at."""

from __future__ import annotations

import pytest
import torch

from config import Config
from gaussian_renderer.showcase import NUM_VIEWS, views_of
from scene.gaussian_model import GaussianModel
from tests.changed import changed


def ball(y: float, spread: float) -> GaussianModel:
    """Dark points around (0, y, 0)."""
    points = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * spread
    points = points + torch.tensor([0.0, y, 0.0])
    return GaussianModel.from_points(points, torch.zeros(64, 3), 0, initial_opacity=0.9)


def config(**keys: object) -> Config:
    return changed(Config(), image_w=24, image_h=24, **keys)


def test_they_go_once_around_on_white() -> None:
    views = views_of(ball(0.5, 0.06), config())
    assert views.shape == (NUM_VIEWS, 3, 24, 24)
    assert bool(((views >= 0) & (views <= 1)).all())
    darkness = 1 - views.mean(dim=1)
    assert float(darkness[:, :2].max()) == pytest.approx(0, abs=1e-3)
    # From the front (+x) what is at +y is on the right; a quarter turn on, it is in the middle.
    column = (darkness.sum(dim=1) * torch.arange(24)).sum(dim=1) / darkness.sum(dim=(1, 2))
    side = column - 11.5
    expected = torch.cos(torch.arange(NUM_VIEWS) * (2 * torch.pi / NUM_VIEWS))
    assert float(side[0]) > 2
    clear = expected.abs() > 0.2
    assert torch.equal(torch.sign(side[clear]), torch.sign(expected[clear]))


def test_they_are_of_the_configured_size_whatever_the_supersampling() -> None:
    dark = ball(0, 0.3)
    plain, fine = (views_of(dark, config(SSAA=factor), count=3) for factor in (1, 2))
    assert plain.shape == fine.shape == (3, 3, 24, 24)
    assert not torch.equal(plain, fine)
    assert float((plain - fine).abs().mean()) < 0.1 * float((1 - plain).mean())
