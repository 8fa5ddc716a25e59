from __future__ import annotations

import numpy as np
import pytest

from toybox.captions import PAIRS
from toybox.look_alikes import IMPOSTORS, TOYS, shares
from toybox.point_judge import FARTHEST, FARTHEST_COLOR, JUDGED_POINTS, SURFACE_POINTS, judge_points
from toybox.splats import rough_point_cloud
from toybox.world import KINDS, toy

SOME = PAIRS[::5]


def sampled(kind: str, color: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    truth = toy(kind, color)
    chosen = np.random.default_rng(seed).integers(len(truth.points), size=JUDGED_POINTS)
    return truth.points[chosen], truth.colors[chosen]


@pytest.mark.parametrize("sort", TOYS)
def test_toys_are_themselves(sort: str) -> None:
    assert shares(sort, SOME).right == 1


@pytest.mark.parametrize("sort", [sort for sort in IMPOSTORS if sort != "two-fronted"])
def test_what_only_resembles_a_toy_is_none(sort: str) -> None:
    found = shares(sort, SOME)
    assert found.count > 0
    assert found.right <= 0.1
    assert found.refused >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_rough_starts_have_a_kind(kind: str) -> None:
    points = rough_point_cloud(kind, "red", seed=1)
    verdict = judge_points(points, np.full_like(points, 0.5))
    assert verdict.kind == kind


def test_kind_and_colour_are_told_apart() -> None:
    points, colors = sampled("car", "red")
    assert judge_points(points, sampled("car", "blue")[1]) == judge_points(*sampled("car", "blue"))
    assert judge_points(points, 1 - colors).kind == "car"
    assert judge_points(points, 1 - colors).color is None
    assert judge_points(points, 1 - colors).color_error > FARTHEST_COLOR
    far = judge_points(2 * points, colors)
    assert (far.kind, far.color) == (None, None)
    assert far.distance > FARTHEST


def test_the_distance_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    points, colors = rng.normal(size=(2, 300, 3))
    expected = {}
    for kind in KINDS:
        surface = toy(kind, "red").points
        apart = np.linalg.norm(points[:, None] - surface, axis=2)
        there, back = apart.min(axis=1), apart.min(axis=0)[:SURFACE_POINTS]
        expected[kind] = max(np.sqrt((there**2).mean()), np.sqrt((back**2).mean()))
    assert judge_points(points, colors).distance == pytest.approx(min(expected.values()))


def test_the_order_of_the_points_does_not_matter() -> None:
    points, colors = sampled("duck", "green")
    order = np.random.default_rng(1).permutation(JUDGED_POINTS)
    verdict, other = judge_points(points, colors), judge_points(points[order], colors[order])
    assert (verdict.kind, verdict.color) == (other.kind, other.color) == ("duck", "green")
    assert verdict.distance == pytest.approx(other.distance)


def test_a_larger_cloud_is_judged_by_as_many_points() -> None:
    few = judge_points(*sampled("house", "orange"))
    truth = toy("house", "orange")
    assert judge_points(truth.points, truth.colors).distance == pytest.approx(few.distance, rel=0.15)
