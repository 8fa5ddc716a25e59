from __future__ import annotations

import itertools
import logging

import pytest
import torch
from torch import Tensor

from scene.point_cloud import AXES, PointCloud, fit_of, thin, upright, without_broken

NAMES = [sign + axis for axis in "xyz" for sign in ("", "-")]
PAIRS = [(up, front) for up, front in itertools.product(NAMES, NAMES) if up[-1] != front[-1]]


def fit_to_view(points: Tensor, view: float) -> Tensor:
    fit = fit_of(points, view)
    return points if fit is None else fit(points)


def vector(name: str) -> Tensor:
    return torch.tensor(AXES[name[-1]]) * (-1 if name[0] == "-" else 1)


def random_points(count: int = 30) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 0.3


@pytest.mark.parametrize(("up", "front"), PAIRS)
def test_what_is_up_and_in_front_gets_there_by_a_rotation(up: str, front: str) -> None:
    turned = upright(torch.stack([vector(up), vector(front)]), f"{up},{front}")
    assert turned.tolist() == [[0, 0, 1], [1, 0, 0]]
    rotation = upright(torch.eye(3), f"{up},{front}")
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3))
    assert torch.linalg.det(rotation) == 1


def test_our_own_axes_change_nothing_and_point_es_turn_a_quarter() -> None:
    points = random_points()
    assert torch.equal(upright(points, "z,x"), points)
    x, y, z = points.unbind(1)
    assert torch.equal(upright(points, "z,-y"), torch.stack([-y, x, z], dim=1))


def test_clouds_in_view_stay_and_others_are_centred_and_scaled() -> None:
    points = random_points()
    assert torch.equal(fit_to_view(points, 1.0), points)
    # Too large, too small, beside the picture, and small at its edge.
    for outside in (points * 100, points * 0.001, points + 50.0, points * 0.01 + 0.5):
        fitted = fit_to_view(outside, 1.0)
        assert fitted.norm(dim=1).max() == pytest.approx(0.75, rel=1e-3)
        low, high = fitted.aminmax(dim=0)
        torch.testing.assert_close(low, -high, atol=1e-3, rtol=0)
        # One factor for all axes: shapes keep their proportions.
        ratio = (fitted[1:] - fitted[:-1]) / (outside[1:] - outside[:-1])
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-2, atol=0)
        assert torch.equal(fit_to_view(fitted, 1.0), fitted)


@pytest.mark.parametrize("reach", [1e-30, 1e30])
def test_clouds_of_absurd_size_fit(reach: float) -> None:
    assert fit_to_view(random_points() * reach, 2.0).norm(dim=1).max() == pytest.approx(1.5)


@pytest.mark.parametrize("count", [1, 3])
def test_points_without_extent_come_to_the_middle(count: int) -> None:
    assert torch.equal(fit_to_view(torch.full((count, 3), 9.0), 1.0), torch.zeros(count, 3))


def test_thinning_keeps_a_random_subset_in_order_with_its_colours() -> None:
    points = torch.arange(50.0)[:, None].expand(50, 3)
    cloud = PointCloud(points, points / 50)
    rng = torch.Generator().manual_seed(0)
    thinned = thin(cloud, 20, rng)
    kept = thinned.points[:, 0]
    assert thinned.points.shape == (20, 3)
    assert bool((kept[1:] > kept[:-1]).all())
    assert thinned.colors is not None
    torch.testing.assert_close(thinned.colors * 50, thinned.points)
    assert not torch.equal(thin(cloud, 20, rng).points, thinned.points)
    assert thin(cloud, 50, rng) is cloud


def test_points_that_are_not_finite_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    points, colors = random_points(), random_points().clamp(0, 1)
    points[3, 1], points[7, 0], colors[9, 2] = float("nan"), float("inf"), float("nan")
    with caplog.at_level(logging.WARNING):
        sound = without_broken(PointCloud(points, colors), "x.ply")
    assert caplog.messages == ["'x.ply': 3 of 30 points are not finite and are left out."]
    kept = [row for row in range(30) if row not in (3, 7, 9)]
    assert torch.equal(sound.points, points[kept])
    assert sound.colors is not None
    assert torch.equal(sound.colors, colors[kept])


@pytest.mark.parametrize(
    ("count", "words"), [(0, "holds no points"), (4, "holds only points that are not finite")]
)
def test_without_a_sound_point_there_is_no_start(count: int, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^'x.ply' {words}, but at least 1"):
        without_broken(PointCloud(torch.full((count, 3), float("nan")), None), "x.ply")


def test_a_stray_point_in_a_hundred_does_not_move_a_cloud() -> None:
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    points[:9] *= 100.0
    assert torch.equal(fit_to_view(points, 1.0), points)
    points[:20] *= 100.0
    assert not torch.equal(fit_to_view(points, 1.0), points)
