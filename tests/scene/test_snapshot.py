"""Snapshots and what is restored of them: everything that an iteration changes."""

from __future__ import annotations

import pytest
import torch

from config.schema import OptimizationParams
from scene.gaussian_model import GaussianModel
from scene.optimizer import GaussianOptimizer
from scene.snapshot import restore, snapshot
from utils.device import HOST


def test_what_is_restored_has_the_same_snapshot() -> None:
    """Parameters, moments and statistics all differ from those of a new run."""
    rng = torch.Generator().manual_seed(0)
    params = OptimizationParams(iterations=10)
    points, colors = torch.rand(2, 9, 3, generator=rng)
    optimizer = GaussianOptimizer(GaussianModel.from_points(points, colors, 1), params, 1.0)
    for parameter in optimizer.model.raw().values():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    optimizer.step(1)
    for name in ("gradient_sum", "views", "max_radii"):
        setattr(optimizer.stats, name, torch.rand(9, generator=rng))
    taken = snapshot(optimizer)
    assert all(bool(tensor.any()) for tensor in taken.values())
    again = snapshot(restore(taken, params, 1.0, HOST))
    assert again.keys() == taken.keys()
    for name, tensor in taken.items():
        assert torch.equal(again[name], tensor), name
    del taken["stats/views"]
    with pytest.raises(ValueError, match="stats/views"):
        restore(taken, params, 1.0, HOST)
