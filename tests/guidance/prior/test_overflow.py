"""The watch remembers what has left the range of float16 until it is read."""

from __future__ import annotations

import pytest
import torch

from guidance.prior.overflow import OverflowWatch
from tests.waits import DEVICE, Wait, no_waits


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_bad_value_is_seen_once_whatever_comes_after(value: float) -> None:
    watch, bad = OverflowWatch(), torch.zeros(2, 4, 8, 8)
    bad[1, 2, 3, 4] = value
    for answer in (torch.zeros(3), bad, torch.zeros(3)):
        watch.look("unet", answer)
    watch.look("vae", torch.zeros(3))
    assert watch.take() == ["unet"]
    assert watch.take() == []
    watch.look("unet", torch.zeros(3))
    assert watch.take() == []


def test_infinities_do_not_cancel() -> None:
    watch = OverflowWatch()
    watch.look("unet", torch.tensor([float("inf"), float("-inf")]))
    assert watch.take() == ["unet"]


def test_the_largest_halves_are_no_overflow() -> None:
    """The numbers are as many as a batch of decoded images has."""
    watch = OverflowWatch()
    watch.look("vae", torch.full((8, 3, 512, 512), torch.finfo(torch.float16).max))
    assert watch.take() == []


def test_only_asking_waits() -> None:
    watch, answer = OverflowWatch(), torch.randn(2, 4, device=DEVICE, requires_grad=True)
    with no_waits():
        watch.look("unet", answer)
        watch.look("unet", answer)
        with pytest.raises(Wait):
            watch.take()
