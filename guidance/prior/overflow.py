"""Watch for answers of networks that have left the range of float16, which ends at 65504."""

from __future__ import annotations

import torch
from torch import Tensor


class OverflowWatch:
    """Record of answers that are not finite, kept without waiting for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = {}

    def look(self, name: str, answer: Tensor) -> None:
        """Note an answer, a float32 copy of halves of any shape.

        Halves are far too few and too small for their sum to overflow by itself.
        """
        self._sums.setdefault(name, []).append(answer.detach().sum())

    def take(self) -> list[str]:
        """Return the names of networks that gave a non-finite answer since the last call. Waits for the device."""
        sums, self._sums = self._sums, {}
        return [name for name, each in sums.items() if not bool(torch.stack(each).isfinite().all())]
