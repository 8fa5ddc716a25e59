from __future__ import annotations

import pytest
import torch

from simple_knn._C import LONE_POINT, distCUDA2


def brute_force(points: torch.Tensor) -> torch.Tensor:
    squared = (points.double()[:, None] - points.double()[None]).square().sum(dim=2)
    squared.fill_diagonal_(float("inf"))
    return squared.sort(dim=1).values[:, : min(3, len(points) - 1)].mean(dim=1)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_brute_force(count: int, dtype: torch.dtype) -> None:
    points = torch.randn(count, 3, dtype=dtype, generator=torch.Generator().manual_seed(count))
    result = distCUDA2(points)
    assert (result.dtype, result.shape, result.device) == (dtype, (count,), points.device)
    torch.testing.assert_close(result, brute_force(points).to(dtype), rtol=1e-6, atol=0)


def test_duplicates_are_neighbours_at_distance_zero() -> None:
    points = torch.randn(40, 3).repeat_interleave(torch.arange(1, 41) % 5 + 1, dim=0)
    torch.testing.assert_close(distCUDA2(points), brute_force(points).float(), rtol=1e-6, atol=0)
    assert distCUDA2(torch.ones(20_000, 3)).tolist() == [0.0] * 20_000


def test_far_from_the_origin_nothing_is_lost() -> None:
    points = torch.rand(100, 3, dtype=torch.float64) * 1e-3 + 1e4
    torch.testing.assert_close(distCUDA2(points), brute_force(points), rtol=1e-9, atol=0)


def test_lone_and_no_points() -> None:
    assert distCUDA2(torch.zeros(1, 3)).tolist() == [pytest.approx(LONE_POINT)]
    assert distCUDA2(torch.zeros(0, 3)).shape == (0,)


def test_gradients_are_not_followed() -> None:
    points = torch.rand(10, 3, requires_grad=True)
    assert not distCUDA2(points).requires_grad


@pytest.mark.parametrize("points", [torch.zeros(5, 2), torch.zeros(5), torch.full((5, 3), float("nan"))])
def test_wrong_points_get_a_sentence(points: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^points has"):
        distCUDA2(points)
