"""Scalars on their way to the log."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.event_log import gather


def test_scalars_are_fetched_as_they_were() -> None:
    loss, half = torch.tensor(1.5, requires_grad=True), torch.tensor(0.25, dtype=torch.float16)
    fetch = gather({"loss": loss, "count": 3, "half": half, "big": torch.tensor(2**20)})
    with torch.no_grad():
        loss.add_(1)
        half.zero_()
    assert fetch() == {"loss": 1.5, "count": 3, "half": 0.25, "big": 2.0**20}
    assert gather({"only": 1.0})() == {"only": 1.0}
    assert gather({})() == {}


def test_only_the_fetching_waits_for_the_device(monkeypatch) -> None:
    gather({str(number): torch.zeros((), device="meta") for number in range(30)})
    values = {str(number): torch.tensor(float(number)) for number in range(30)}
    usual, transfers = Tensor.tolist, []

    def counted(tensor: Tensor) -> list[float]:
        transfers.append(tensor.numel())
        return usual(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    fetch = gather(values)
    assert not transfers
    assert fetch() == {str(number): number for number in range(30)}
    assert transfers == [30]
