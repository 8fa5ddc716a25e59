"""Prompts by view: azimuth and polar angle to text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

VIEW_WORDS = (", front view", ", side view", ", back view", ", overhead view")
"""Appended to the prompt, in the order of the columns of `view_weights`."""


class TextEncoder(Protocol):
    """The part of a prior that the prompts need."""

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        """Embeddings [P, L, D] of P texts."""


@dataclass(frozen=True)
class Conditioning:
    """Text embeddings of V views, each [V, L, D].

    Attributes:
        positive: y, the prompt as seen from each view.
        negative: n, the negative prompt.
        unconditional: the empty ("inverse") prompt.
        has_negative: whether a negative prompt was given; otherwise `negative` is that of the empty text.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    unconditional: torch.Tensor
    has_negative: bool


def view_weights(
    azimuth: torch.Tensor, polar: torch.Tensor | None = None, angle_overhead: float = 30.0
) -> torch.Tensor:
    """How much each of the four view prompts counts, seen from an azimuth.

    The front half mixes front and side with r = 1 - |phi| / 90, the back half side and back with
    r = 1 - (|phi| - 90) / 90, as LucidDreamer does. From above (polar < angle_overhead) only the
    overhead prompt counts.

    Args:
        azimuth: [V] degrees, 0 = front; any real number, taken modulo 360.
        polar: [V] degrees from +z; None: never overhead.
        angle_overhead: degrees.
    Returns: [V, 4] weights of (front, side, back, overhead) that are not negative and sum to one.
    """
    turned = ((azimuth + 180.0) % 360.0 - 180.0).abs() / 90.0
    front = (1.0 - turned).clamp_min(0.0)
    back = (turned - 1.0).clamp_min(0.0)
    weights = torch.stack([front, 1.0 - front - back, back, torch.zeros_like(front)], dim=-1)
    if polar is None:
        return weights
    overhead = weights.new_tensor([0.0, 0.0, 0.0, 1.0])
    return torch.where((polar < angle_overhead)[:, None], overhead, weights)


class PromptEmbeddings:
    """Every text a run needs, embedded once.

    Args:
        encoder: the prior's text encoder.
        text: the prompt, without view words.
        negative: the negative prompt; empty for none.
        inverse: the text of the unconditional prediction (`inverse_text`), usually empty.
        angle_overhead: degrees from +z below which a view is from overhead.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        text: str,
        *,
        negative: str = "",
        inverse: str = "",
        angle_overhead: float = 30.0,
    ) -> None:
        self.texts = [*(text + words for words in VIEW_WORDS), negative, inverse]
        embedded = encoder.embed(self.texts)
        self._views, self._negative, self._inverse = embedded[:4], embedded[4:5], embedded[5:6]
        self._has_negative = bool(negative.strip())
        self._angle_overhead = angle_overhead

    def at(self, azimuth: torch.Tensor, polar: torch.Tensor) -> Conditioning:
        """The embeddings for views at azimuth [V] and polar [V], in degrees."""
        weights = view_weights(azimuth, polar, self._angle_overhead)
        views = self._views
        weights = weights.to(device=views.device, dtype=views.dtype, non_blocking=True)
        count = len(azimuth)
        return Conditioning(
            positive=torch.einsum("vk,kld->vld", weights, views),
            negative=self._negative.expand(count, -1, -1),
            unconditional=self._inverse.expand(count, -1, -1),
            has_negative=self._has_negative,
        )
