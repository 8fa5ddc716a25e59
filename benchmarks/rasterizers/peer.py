"""Interface between the benchmark and a rasterizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from torch import Tensor

from .scene import Scene

Images = tuple[Tensor, ...]
"""Images rgb [V, 3, H, W], and depth and alpha [V, 1, H, W] of those that give them."""

Render = Callable[[], Images]


@dataclass(frozen=True)
class Peer:
    """Rasterizer that gets a line of the table.

    prepare does what is not timed and returns what is timed as the forward; it raises where the peer cannot
    run. bytes_per_pixel: memory that it needs for every pixel that a Gaussian covers, 0 where that does not
    matter. replayed: forward and backward are captured in a CUDA graph, and its replay is timed.
    """

    name: str
    version: str
    prepare: Callable[[Scene], Render]
    bytes_per_pixel: float = 0
    replayed: bool = False


def version_of(distribution: str) -> str:
    """The version of an installed distribution, "" where there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
