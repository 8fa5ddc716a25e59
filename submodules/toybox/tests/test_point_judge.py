from __future__ import annotations

import numpy as np
import pytest

from toybox.captions import ALONE, STACKED
from toybox.look_alikes import IMPOSTORS, TOYS, shares
from toybox.point_judge import FARTHEST, FARTHEST_COLOR, JUDGED_POINTS, NAMED, SURFACE_POINTS, judge_points
from toybox.world import Name, toy

SOME = (*ALONE[::7], *STACKED[::57])
SIZES = [pytest.param(SOME[::6], id="some"), pytest.param(SOME, id="all", marks=pytest.mark.thorough)]


def sampled(name: Name, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    truth = toy(name)
    chosen = np.random.default_rng(seed).integers(len(truth.points), size=JUDGED_POINTS)
    return truth.points[chosen], truth.colors[chosen]


@pytest.mark.parametrize("names", SIZES)
@pytest.mark.parametrize("sort", TOYS)
def test_toys_are_themselves(sort: str, names: tuple[Name, ...]) -> None:
    assert shares(sort, names).right == 1


@pytest.mark.parametrize("names", SIZES)
@pytest.mark.parametrize("sort", [sort for sort in IMPOSTORS if sort != "two-fronted"])
def test_what_only_resembles_a_toy_is_none(sort: str, names: tuple[Name, ...]) -> None:
    found = shares(sort, names)
    assert found.count > 0
    # A robot's ring is nearly a robot, in points.
    assert found.right <= 0.15
    assert found.refused >= 0.85


def test_kind_and_colour_are_told_apart() -> None:
    points, colors = sampled(Name("car", "red"))
    assert judge_points(points, sampled(Name("car", "blue"))[1]) == judge_points(
        *sampled(Name("car", "blue"))
    )
    assert judge_points(points, 1 - colors).shape == ("car", False)
    assert judge_points(points, 1 - colors).name is None
    assert judge_points(points, 1 - colors).color_error > FARTHEST_COLOR
    far = judge_points(2 * points, colors)
    assert (far.shape, far.name) == (None, None)
    assert far.distance > FARTHEST


def test_the_distance_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    points, colors = rng.normal(size=(2, 300, 3))
    expected = {}
    for shape, (name, *_) in NAMED.items():
        surface = toy(name).points
        apart = np.linalg.norm(points[:, None] - surface, axis=2)
        there, back = apart.min(axis=1), apart.min(axis=0)[:SURFACE_POINTS]
        expected[shape] = max(np.sqrt((there**2).mean()), np.sqrt((back**2).mean()))
    assert judge_points(points, colors).distance == pytest.approx(min(expected.values()))


def test_the_order_of_the_points_does_not_matter() -> None:
    points, colors = sampled(Name("duck", "green"))
    order = np.random.default_rng(1).permutation(JUDGED_POINTS)
    verdict, other = judge_points(points, colors), judge_points(points[order], colors[order])
    assert verdict.name == other.name == Name("duck", "green")
    assert verdict.distance == pytest.approx(other.distance)


def test_a_larger_cloud_is_judged_by_as_many_points() -> None:
    few = judge_points(*sampled(Name("house", "orange")))
    truth = toy(Name("house", "orange"))
    assert judge_points(truth.points, truth.colors).distance == pytest.approx(few.distance, rel=0.15)
