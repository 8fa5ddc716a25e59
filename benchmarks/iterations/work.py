"""Count floating-point operations: of a prior's networks, and how many a device does in matrix products at best."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from guidance.prior import LatentPrior
from guidance.prior.shadow import META, shadow

from .clock import Clock, Span

REPEATS = 20


@dataclass(frozen=True)
class Work:
    """Operations of matrix products and convolutions, a multiplication and an addition being two: of one
    latent in the U-Net, and of one image in the encoder, there and back.
    """

    unet: int
    encode: int
    encode_backward: int


def operations(function: Callable[[], Any]) -> int:
    """Operations of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def work_of(prior: LatentPrior) -> Work:
    """Operations of a prior's networks, counted on the meta device; of views that it sees together, the mean of a set."""
    twin, views = shadow(prior), prior.views_per_set
    images = torch.zeros(views, 3, prior.image_size, prior.image_size, device=META, requires_grad=True)
    latents: list[Tensor] = []
    encode = operations(lambda: latents.append(twin.encode(images)))
    [z] = latents
    with torch.no_grad():
        unet = operations(lambda: twin.predict(z, torch.zeros(1, dtype=torch.long), twin.whole_blank(1)))
    return Work(*(each // views for each in (unet, encode, operations(z.sum().backward))))


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two large square matrices: the median of REPEATS, after as many to warm up."""
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    clock = Clock(device)
    product = clock.timed("product", torch.matmul)
    for _ in range(2 * REPEATS):
        product(left, right)
    clock.wait()
    return tera(2 * size**3, statistics.median(map(ms_of, clock.spans[REPEATS:])))


def ms_of(span: Span) -> float:
    return span.ms


def tera(count: float, ms: float) -> float:
    """TFLOP/s of so many operations in so many milliseconds."""
    return count / ms / 1e9 if ms > 0 else 0.0
