"""Float16 ends at 65504: which networks' answers have left it."""

from __future__ import annotations

import torch


class OverflowWatch:
    """Looks at answers without waiting for the device, and says when asked what it has seen."""

    def __init__(self) -> None:
        self._sums: dict[str, list[torch.Tensor]] = {}

    def look(self, name: str, answer: torch.Tensor) -> None:
        """At float32 copies of halves, of any shape: far too few and too small for their sum to overflow by itself."""
        self._sums.setdefault(name, []).append(answer.detach().sum())

    def take(self) -> list[str]:
        """The names that have given an answer which is not finite since the last call. Waits for the device."""
        sums, self._sums = self._sums, {}
        return [name for name, each in sums.items() if not bool(torch.stack(each).isfinite().all())]
