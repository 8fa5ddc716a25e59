"""Starts from Point-E, with a stand-in for the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import point_e
import toybox
from config import Config
from scene.initialize import initialize
from scene.point_cloud import PointCloud
from scene.pointe import multiply
from tests.changed import changed
from utils.spherical_harmonics import dc_to_rgb

HOST = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class StandIn:
    """Stand-in for point_e that remembers its inputs."""

    points: Tensor
    colors: Tensor
    asked: list[Any] = field(default_factory=list)

    def load(self, model: str, *, device: torch.device) -> StandIn:
        self.asked += [model, device]
        return self

    def from_text(self, prompt: str, *, seed: int, progress: bool) -> point_e.PointCloud:
        self.asked += [prompt, seed, progress]
        return point_e.PointCloud(self.points, self.colors)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    points, colors = torch.rand(2, 64, 3, generator=rng())
    model = StandIn(points - 0.5, colors)
    monkeypatch.setattr(point_e, "load", model.load)
    return model


def config(**keys: Any) -> Config:
    return changed(Config(), **{"init_shape": "pointe", "init_num_pts": 64, "text": "a mug", **keys})


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ({}, ["openai", HOST, "a mug", 0, True]),
        ({"init_prompt": "a cup", "seed": 7}, ["openai", HOST, "a cup", 7, True]),
        ({"init_prompt": "  ", "quiet": True}, ["openai", HOST, "a mug", 0, False]),
        ({"pointe_model": "base300M"}, ["base300M", HOST, "a mug", 0, True]),
        ({"pointe_model": "openai", "model_key": "toybox"}, ["openai", HOST, "a mug", 0, True]),
        ({"model_key": "toybox"}, [str(toybox.weights_path() / "point_e"), HOST, "a mug", 0, True]),
        ({"pointe_model": "toybox"}, [str(toybox.weights_path() / "point_e"), HOST, "a mug", 0, True]),
    ],
)
def test_point_e_is_asked_for_what_the_keys_say(
    stand_in: StandIn, keys: dict[str, Any], asked: list[Any]
) -> None:
    initialize(config(**keys), rng(), HOST)
    assert stand_in.asked == asked


@pytest.mark.parametrize(
    ("keys", "turned"),
    [
        ({}, lambda x, y, z: (-y, x, z)),  # OpenAI's front is -y
        ({"pointe_model": "toybox"}, lambda x, y, z: (x, y, z)),
        ({"init_axes": "y,z"}, lambda x, y, z: (z, x, y)),
    ],
)
def test_its_front_becomes_ours(stand_in: StandIn, keys: dict[str, Any], turned: Any) -> None:
    means = initialize(config(**keys), rng(), HOST).means
    torch.testing.assert_close(means.detach(), torch.stack(turned(*stand_in.points.unbind(1)), dim=1))


def test_its_colours_are_kept_when_asked_for(stand_in: StandIn) -> None:
    kept = dc_to_rgb(initialize(config(use_pointe_rgb=True), rng(), HOST).shs[:, 0])
    torch.testing.assert_close(kept.detach(), stand_in.colors)
    grey = dc_to_rgb(initialize(config(), rng(), HOST).shs[:, 0])
    assert bool(((grey >= 0.5) & (grey < 0.502)).all())


def test_its_errors_are_sentences_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *, device: torch.device) -> StandIn:
        raise point_e.PointEError("the weights are not here.")

    monkeypatch.setattr(point_e, "load", load)
    with pytest.raises(ValueError, match=r"^Point-E: the weights are not here\.$"):
        initialize(config(), rng(), HOST)


@pytest.mark.parametrize("count", [65, 128, 1000])
def test_each_point_becomes_as_many_no_farther_away_than_its_neighbours(count: int) -> None:
    points, colors = torch.rand(2, 64, 3, generator=rng())
    many = multiply(PointCloud(points, colors), count, rng(1))
    assert many.colors is not None
    assert torch.equal(many.points[:64], points)
    squared = torch.cdist(points.double(), points.double()).square().fill_diagonal_(torch.inf)
    reach = squared.sort(dim=1).values[:, :3].mean(dim=1).sqrt()
    # Which point a new one belongs to is told by its colour.
    parents = (many.colors[:, None] == colors[None]).all(dim=2).int().argmax(dim=1)
    distance = (many.points - points[parents]).double().norm(dim=1)
    assert bool((distance <= reach[parents] * (1 + 1e-5)).all())
    families = torch.bincount(parents, minlength=64)
    assert int(families.sum()) == count
    assert int(families.max() - families.min()) <= 1


def test_new_points_fill_their_ball() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    many = multiply(PointCloud(corners, corners), 40_000, rng())
    assert many.colors is not None
    # Those of the corner at the origin, whose neighbours are at distance 1.
    mine = many.points[4:][(many.colors[4:] == 0).all(dim=1)]
    for radius in (0.5, 0.75, 0.9):
        assert float((mine.norm(dim=1) < radius).float().mean()) == pytest.approx(radius**3, abs=0.02)
    assert mine.mean(dim=0).norm() < 0.03


def test_more_points_than_asked_for_are_thinned() -> None:
    points, colors = torch.rand(2, 64, 3, generator=rng())
    few = multiply(PointCloud(points, colors), 10, rng())
    assert len(few) == 10
    assert {tuple(point) for point in few.points.tolist()} < {tuple(point) for point in points.tolist()}
