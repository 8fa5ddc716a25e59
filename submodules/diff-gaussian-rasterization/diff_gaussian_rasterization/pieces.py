"""Work on large tensors without torch's own threads."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

GRAIN = 32768
"""Numbers from which on torch shares an operation among threads (at::internal::GRAIN_SIZE)."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors [R, ...] into the same rows of each, so few on the host that torch needs no other threads for them.

    These would look for more work long after, 5 to 9 ms on an EPYC (Zen 3), and hold the cores that our threads need.
    """
    rows = len(tensors[0])
    widest = max(tensor[:1].numel() for tensor in tensors)
    few = max(1, (GRAIN - 1) // max(1, widest)) if tensors[0].device.type == "cpu" else max(1, rows)
    return zip(*(tensor.split(few) for tensor in tensors))
