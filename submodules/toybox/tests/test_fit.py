"""The training loop: an interrupted run ends in the same weights as one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toybox.lab.fit import Loss, Schedule, fit


class Interrupted(Exception):
    pass


def regression(model: nn.Module, stop_at: int | None = None) -> Loss:
    target = torch.randn(8, 3, generator=torch.Generator().manual_seed(7))

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        if step == stop_at:
            raise Interrupted
        x = torch.randn(16, 8, generator=rng)
        return (model(x) - x @ target).square().mean(), {}

    return loss


def fresh() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 3)


@pytest.mark.thorough
def test_an_interrupted_fit_ends_byte_for_byte_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    """AdamW has the bias, and Muon the matrix."""
    schedule = Schedule(steps=1200, lr=1e-2, warmup=10)

    def train(model: nn.Linear, folder: str, stop_at: int | None = None) -> nn.Linear:
        fit("line", model, regression(model, stop_at), schedule, tmp_path / folder, 1, muon=[model.weight])
        return model

    whole = train(fresh(), "whole")
    with pytest.raises(Interrupted):
        train(fresh(), "broken", stop_at=700)
    again = train(fresh(), "broken")
    for one, two in zip(whole.parameters(), again.parameters()):
        assert torch.equal(one, two)


def test_fit_finds_the_least_squares_solution(tmp_path: Path) -> None:
    model = fresh()
    loss = regression(model)
    before = float(loss(0, torch.Generator().manual_seed(5))[0].detach())
    fit("line", model, loss, Schedule(steps=800, lr=2e-2, warmup=10, ema=0.9), tmp_path, seed=0)
    assert float(loss(0, torch.Generator().manual_seed(5))[0].detach()) < 1e-3 * before


def test_the_rate_rises_and_falls_to_zero() -> None:
    schedule = Schedule(steps=1000, lr=1.0, warmup=100)
    assert schedule.factor(0) == pytest.approx(0.01)
    assert max(schedule.factor(step) for step in range(1000)) < 1
    assert schedule.factor(999) < 1e-4
