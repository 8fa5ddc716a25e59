"""Counted bytes against those that can be added up by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.live_memory import LiveMemory
from utils.device import HOST

DEVICES = [HOST, torch.device("meta")]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_tensors_count_from_when_they_are_made_until_they_are_gone(device: torch.device) -> None:
    before = torch.ones(500, device=device)
    with LiveMemory() as memory:
        one = torch.zeros(1000, device=device)
        assert memory.now == 4000
        view = one[10:20].reshape(2, 5)
        one += before[0]
        assert memory.now == 4000
        two = torch.zeros(100, dtype=torch.float16, device=device)
        assert memory.now == 4200
        del one
        assert memory.now == 4200, "a view of it is left"
        del view
        assert memory.now == 200
        del two
    assert memory.now == 0
    assert memory.peak == 4200


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_what_is_saved_for_the_way_back_counts(device: torch.device) -> None:
    """Inputs of k sines in a row count, but for the first, which was there before; so does the last result."""
    x = torch.ones(1000, device=device, requires_grad=True)
    with LiveMemory() as memory:
        y = x
        for _ in range(5):
            y = y.sin()
        assert memory.now == 5 * 4000
        y.sum().backward()
        del y
        # The gradient.
        assert memory.now == 4000
    assert memory.peak >= 6 * 4000


def test_a_network_needs_the_same_on_the_meta_device() -> None:
    def peak(device: torch.device) -> int:
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 3)]
        network = nn.Sequential(*layers).requires_grad_(False).to(device)
        x = torch.zeros(2, 3, 16, 16, device=device, requires_grad=True)
        with LiveMemory() as memory:
            network(x).square().sum().backward()
        return memory.peak

    host, meta = map(peak, DEVICES)
    assert host == pytest.approx(meta, rel=0.01)
