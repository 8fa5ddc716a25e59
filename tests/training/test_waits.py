"""The mode that refuses waits: each kind of them, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.waits import DEVICE, Wait, no_waits

DEVICE_TENSOR = torch.randn(4, 3, device=DEVICE)
ROWS = torch.tensor([0, 1], device=DEVICE)
HOST = torch.randn(4, 3)
HOST_ROWS = torch.tensor([0, 1])

WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0]),
    "bool": lambda x: bool((x > 0).any()),
    "max": lambda x: max(x.sum(), 1),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: torch.nonzero(x),
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.long().unique(),
    "equal": lambda x: torch.equal(x, x),
    "inverse": lambda x: torch.linalg.inv(x[:3]),
    "slice": lambda x: x[: x.sum().long()],
    "fill": lambda x: torch.full((2,), x.sum()),
    "mask": lambda x: x[x > 0],
    "mask, written to": lambda x: x.__setitem__(x > 0, 0.0),
    "index on the host": lambda x: x[HOST_ROWS],
    "index on the host, written to": lambda x: x.__setitem__(HOST_ROWS, 0.0),
    "list": lambda x: x[[0, 1]],
    "to the host": lambda x: x.cpu(),
    "to the host, unwatched": lambda x: x.to(HOST.device, non_blocking=True),
    "to the device": lambda x: HOST.to(x.device),
    "to the device, another type": lambda x: HOST.to(x.device, torch.float16),
    "copied to the device": lambda x: x.copy_(HOST),
    "a row of the host": lambda x: x.__setitem__(0, HOST[0]),
    "numbers": lambda x: torch.tensor([1.0], device=x.device),
    "more numbers": lambda x: x.new_tensor([1.0]),
}

FREE: dict[str, Callable[[Tensor], object]] = {
    "to the device": lambda x: HOST.to(x.device, non_blocking=True),
    "to the device, another type": lambda x: HOST.to(x.device, torch.float16, non_blocking=True),
    "copied to the device": lambda x: x.copy_(HOST, non_blocking=True),
    "on the device": lambda x: x.half(),
    "index": lambda x: x[ROWS],
    "index, written to": lambda x: x.__setitem__(ROWS, x[:2]),
    "number": lambda x: x.__setitem__(0, 1.0),
    "constant": lambda x: torch.full((2,), 3.0, device=x.device),
    "factor on the host": lambda x: x * torch.tensor(2.0),
    "where": lambda x: torch.where(x > 0, x, 1.0),
    "the host's own": lambda x: (float(HOST.sum()), HOST[HOST > 0], HOST[[0, 1]], torch.nonzero(HOST)),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_raises(name: str) -> None:
    with no_waits(), pytest.raises(Wait):
        WAITS[name](DEVICE_TENSOR.clone())


@pytest.mark.parametrize("name", FREE)
def test_what_waits_for_nothing_runs(name: str) -> None:
    with no_waits():
        FREE[name](DEVICE_TENSOR.clone())


def test_a_wait_on_the_way_back_raises() -> None:
    class Looks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * float(grad.sum())

    leaf = DEVICE_TENSOR.clone().requires_grad_()
    with no_waits():
        loss = Looks.apply(leaf).sum()
        with pytest.raises(Wait):
            loss.backward()
