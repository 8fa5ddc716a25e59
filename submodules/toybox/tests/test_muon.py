"""Muon: steps whose matrices are near to orthogonal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toybox.lab.fit import Schedule, fit
from toybox.lab.muon import orthogonalized


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_singular_vectors_stay_and_singular_values_come_near_to_1(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = left.mT @ found @ right.mT
    assert 0.6 < float(torch.linalg.svdvals(found).min()) <= float(torch.linalg.svdvals(found).max()) < 1.3
    torch.testing.assert_close(values, torch.diag_embed(values.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-4)


def test_a_fit_by_muon_finds_the_least_squares_solution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, target = nn.Linear(8, 3), torch.randn(8, 3)

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        x = torch.randn(16, 8, generator=rng)
        return (model(x) - x @ target).square().mean(), {}

    before = float(loss(0, torch.Generator().manual_seed(5))[0].detach())
    fit("line", model, loss, Schedule(800, 2e-2, warmup=10, ema=0.9), tmp_path, 0, muon=[model.weight])
    assert float(loss(0, torch.Generator().manual_seed(5))[0].detach()) < 1e-3 * before
