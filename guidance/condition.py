"""What a network is told beside latents and time: a batch of rows that only its prior looks into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PICTURES = "pictures"
"""Part with what ControlNets are shown, the last one, where a condition has it: pictures [B, n, 3, H, W] in [0, 1], one for
each of n ControlNets, or [B, views of a set, n, 3, H, W]."""


IMAGE = "image"
"""Part with what an image prompt's adapter is told, after those of the text: tokens [B, T, D + 1], of which the last channel
is the factor on what they add."""

ORIGINAL = "original"
"""Part with what a prior that edits is shown, the last one: the original's latents [B, C, h, w], zeros for none."""


@dataclass(frozen=True)
class Condition:
    """A batch of B conditions: one tensor for Stable Diffusion 1 and 2, embeddings, masks and vectors elsewhere.

    Attributes:
        parts: by name, in the order in which the network takes them, each [B, ...]. Masks are bool, and lengths
            int64, on the host.
    """

    parts: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self._first)

    @property
    def _first(self) -> Tensor:
        return next(iter(self.parts.values()))

    def rows(self, index: Tensor) -> Condition:
        """Return the rows that `index` (int64, host, increasing) names, without a copy if these are all."""
        if len(index) == len(self):
            return self
        return Condition(
            {name: part[index.to(part.device, non_blocking=True)] for name, part in self.parts.items()}
        )

    def __getitem__(self, row: int) -> Condition:
        """Return one row, as a batch."""
        return Condition({name: part[row : row + 1] for name, part in self.parts.items()})

    def expand(self, count: int) -> Condition:
        """Return `count` times the one row that this has, without a copy."""
        return Condition({name: part.expand(count, *part.shape[1:]) for name, part in self.parts.items()})

    def seen_by(self, cameras: Tensor) -> Condition:
        """Return the same rows, with the cameras [B, views of a set, 16] of each (host) as their last part."""
        return Condition({**self.parts, "camera": cameras.to(self._first.device, non_blocking=True)})

    def with_part(self, name: str, part: Tensor) -> Condition:
        """Return the same rows, with one more part of each, which is the last one."""
        return Condition({**self.parts, name: part})

    def shown(self, pictures: Tensor) -> Condition:
        """Return the same rows, with these pictures of each for ControlNets."""
        return self.with_part(PICTURES, pictures)

    def without_pictures(self) -> Condition:
        """Return the same rows without what ControlNets are shown."""
        return Condition({name: part for name, part in self.parts.items() if name != PICTURES})

    def without_original(self) -> Condition:
        """Return the same rows, shown no original."""
        return self.with_part(ORIGINAL, torch.zeros_like(self.parts[ORIGINAL]))

    def mixed(self, weights: Tensor) -> Condition:
        """Return V rows, each a sum of the B rows with `weights` [V, B] (host); a mask has what any of them has, and a
        length is the largest of them."""
        return Condition({name: _mixed(part, weights) for name, part in self.parts.items()})

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Return all rows, one batch after the other; the batches have the same parts."""
        if len(conditions) == 1:
            return conditions[0]
        return Condition(
            {name: torch.cat([each.parts[name] for each in conditions]) for name in conditions[0].parts}
        )


def _mixed(part: Tensor, weights: Tensor) -> Tensor:
    if not part.is_floating_point():
        counts = (
            (weights > 0).to(part.device, non_blocking=True).reshape(*weights.shape, *[1] * (part.dim() - 1))
        )
        return (counts * part).amax(1).to(part.dtype)
    return torch.einsum("vk,k...->v...", weights.to(part, non_blocking=True), part)
