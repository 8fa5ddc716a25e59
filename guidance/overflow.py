"""Float16 ends at 65504: which networks' answers have left it."""

from __future__ import annotations

import torch


class OverflowWatch:
    """Looks at answers without waiting for the device, and says when asked what it has seen."""

    def __init__(self) -> None:
        self._overflowed: dict[str, torch.Tensor] = {}

    def look(self, name: str, answer: torch.Tensor) -> None:
        """At float32 copies of halves, of any shape: far too few and too small for their sum to overflow by itself."""
        overflowed = ~answer.detach().sum().isfinite()
        if name in self._overflowed:
            overflowed |= self._overflowed[name]
        self._overflowed[name] = overflowed

    def take(self) -> list[str]:
        """The names that have given an answer which is not finite since the last call. Waits for the device."""
        if not self._overflowed:
            return []
        seen = torch.stack([*self._overflowed.values()]).tolist()
        names = [name for name, overflowed in zip(self._overflowed, seen) if overflowed]
        self._overflowed.clear()
        return names
