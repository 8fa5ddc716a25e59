"""The distances of the tables, against closed forms and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from config import load
from evaluation.frechet import Moments, frechet_distance
from gaussian_renderer.showcase import views_of
from toybox import splats
from toybox.lab.assess import assess, surface_cameras
from toybox.lab.metrics import chamfer_distance, speckle, visible_surface
from toybox.splats import Splats
from toybox.world import SPACING, Name, toy

CONFIG = load(["--opt", "config/quickstart.yaml"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_chamfer_distance_equals_all_pairs(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((211, 3)), 0.5 + rng.standard_normal((97, 3))
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    expected = (distances.min(axis=0).mean() + distances.min(axis=1).mean()) / 2
    assert chamfer_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert chamfer_distance(b, a) == pytest.approx(expected, rel=1e-12)
    assert chamfer_distance(a, a) == 0


def test_the_visible_surface_is_the_toys_own() -> None:
    seen = visible_surface(splats.canonical(Name("house", "blue")), surface_cameras(CONFIG.camera))
    distance = cKDTree(toy(Name("house", "blue")).points).query(seen)[0]
    # Only where a silhouette mixes two depths in one pixel is it elsewhere.
    assert np.quantile(distance, 0.9) < 2 * SPACING
    assert distance.mean() < SPACING


def test_what_is_hidden_inside_is_no_part_of_the_surface() -> None:
    cameras, house = surface_cameras(CONFIG.camera), splats.canonical(Name("house", "blue"))
    inside = Splats(*(torch.cat([x, x]) for x in vars(house).values()))
    filled = replace(inside, means=torch.cat([house.means, 0.5 * house.means]))
    hollow, full = visible_surface(house, cameras), visible_surface(filled, cameras)
    assert chamfer_distance(hollow, full) < 0.1 * SPACING
    # As centres of Gaussians alone, the two are far from the same.
    assert chamfer_distance(house.means.numpy(), filled.means.numpy()) > SPACING


def test_speckle_is_of_grains_and_not_of_wrong_colours() -> None:
    rng, car = torch.Generator().manual_seed(0), splats.canonical(Name("car", "blue"))

    def seen(colors: Tensor) -> float:
        return speckle(views_of(replace(car, colors=colors), CONFIG, 12))

    plain = seen(car.colors)
    grains = torch.randn(car.colors.shape, generator=rng)
    assert plain < 0.6 * seen(car.colors + 0.05 * grains)
    assert seen(car.colors + 0.05 * grains) < 0.7 * seen(car.colors + 0.1 * grains)
    # As far from the truth as the grains of 0.1, but everywhere alike.
    assert seen(car.colors - 0.1) < 1.1 * plain
    assert speckle(torch.ones(1, 3, 8, 8)) == 0


@pytest.mark.thorough
def test_the_worse_the_asset_the_worse_its_numbers() -> None:
    rng = torch.Generator().manual_seed(0)
    true = splats.canonical(Name("car", "yellow"))
    exact, worn, ring = (
        assess(gaussians, "a yellow car", CONFIG)
        for gaussians in (true, splats.worn(true, rng, 0.5), splats.ring(true, rng))
    )
    assert exact.chamfer == 0
    assert exact.recognised == 1
    assert exact.chamfer < worn.chamfer < ring.chamfer
    assert exact.psnr > worn.psnr > ring.psnr
    distances = [
        frechet_distance(Moments.of(exact.features), Moments.of(other.features))
        for other in (exact, worn, ring)
    ]
    assert distances == sorted(distances)


def test_a_kind_whose_back_is_as_its_front_has_no_janus() -> None:
    found = assess(splats.canonical(Name("table", "red")), "a red table", CONFIG)
    assert found.janus == found.orientation == 0


@pytest.mark.thorough
def test_a_toy_with_fronts_on_both_sides_has_one() -> None:
    robot = splats.canonical(Name("robot", "red"))
    right, wrong = (
        assess(each, "a red robot", CONFIG) for each in (robot, splats.two_fronted(robot, axis=0))
    )
    assert right.janus == 0
    assert wrong.janus > 0.3
    # A turn of the front by some degrees is the judge's own error; two fronts are off by 90° on average behind.
    assert right.orientation < 10
    assert wrong.orientation > 30
