from __future__ import annotations

import pytest
import torch
from torch import Tensor

from simple_knn._C import LONE_POINT, distCUDA2


def brute_force(points: Tensor) -> Tensor:
    squared = (points.double()[:, None] - points.double()[None]).square().sum(dim=2)
    squared.fill_diagonal_(float("inf"))
    return squared.sort(dim=1).values[:, : min(3, len(points) - 1)].mean(dim=1)


def seeded(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [2, 3, 4, 5, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_brute_force(count: int, dtype: torch.dtype) -> None:
    points = seeded(count, seed=count, dtype=dtype)
    result = distCUDA2(points)
    assert (result.dtype, result.shape, result.device) == (dtype, (count,), points.device)
    torch.testing.assert_close(result, brute_force(points).to(dtype), rtol=1e-6, atol=0)


NORMAL = seeded(1000)
CLOUDS = {
    "plane": NORMAL * torch.tensor([1.0, 1.0, 0.0]),
    "tilted plane": NORMAL[:, :2] @ NORMAL[:2],
    "line": NORMAL[:, :1] * NORMAL[:1],
    "sphere": NORMAL / NORMAL.norm(dim=1, keepdim=True),
    "grid": torch.cartesian_prod(*[torch.arange(10.0, dtype=torch.float64)] * 3),
    "clusters": NORMAL[torch.arange(1000) % 7] + 1e-6 * NORMAL,
    "far away": NORMAL * 1e-3 + 1e6,
    "huge range": NORMAL * torch.exp(seeded(1000, seed=1)[:, :1] * 30),
    "few places": (NORMAL * 2).round(),
    "a crowd and its neighbours": torch.cat([NORMAL[:1].repeat(500, 1), NORMAL[:1] + 1e-6 * NORMAL[500:]]),
    "crowds of three to six": NORMAL[:200].repeat_interleave(torch.arange(200) % 4 + 3, dim=0),
    "duplicates in any order": NORMAL[:200].repeat(5, 1)[torch.randperm(1000, generator=torch.Generator())],
}


@pytest.mark.parametrize("name", CLOUDS)
def test_agrees_with_brute_force_on_clouds_of_every_kind(name: str) -> None:
    torch.testing.assert_close(distCUDA2(CLOUDS[name]), brute_force(CLOUDS[name]), rtol=1e-9, atol=0)


def test_more_points_than_are_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simple_knn._C.QUERIES_AT_ONCE", 64)
    torch.testing.assert_close(distCUDA2(NORMAL), brute_force(NORMAL), rtol=1e-9, atol=0)


def test_the_order_of_the_points_does_not_matter() -> None:
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distCUDA2(NORMAL[shuffled]), distCUDA2(NORMAL)[shuffled])


def test_a_million_copies_of_a_point_take_no_time_of_their_number_squared() -> None:
    assert not distCUDA2(torch.ones(1_000_000, 3)).any()


def test_lone_and_no_points() -> None:
    assert distCUDA2(torch.zeros(1, 3)).tolist() == [pytest.approx(LONE_POINT)]
    assert distCUDA2(torch.zeros(0, 3)).shape == (0,)


def test_gradients_are_not_followed() -> None:
    points = torch.rand(10, 3, requires_grad=True)
    assert not distCUDA2(points).requires_grad


@pytest.mark.gpu
def test_the_result_is_where_the_points_are() -> None:
    points = NORMAL.float().cuda()
    assert distCUDA2(points).device == points.device
    assert torch.equal(distCUDA2(points).cpu(), distCUDA2(NORMAL.float()))


@pytest.mark.parametrize("points", [torch.zeros(5, 2), torch.zeros(5), torch.full((5, 3), float("nan"))])
def test_wrong_points_get_a_sentence(points: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^points has"):
        distCUDA2(points)
