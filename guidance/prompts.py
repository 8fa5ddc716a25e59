"""Prompts by view: azimuth and polar angle to text embeddings, and to Perp-Neg's negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from guidance.camera_condition import camera_matrices
from guidance.condition import IMAGE, PICTURES, Condition

VIEW_WORDS = (", front view", ", side view", ", back view", ", overhead view")
"""Words appended to the prompt, in the order of the columns of `view_weights`."""


class TextEncoder(Protocol):
    """The part of a prior that the prompts need."""

    def embed(self, prompts: Sequence[str]) -> Condition:
        """Conditions of P texts."""


@dataclass(frozen=True)
class PerpNegative:
    """A negative of Perp-Neg.

    Attributes:
        views: the M views [M] (int64, host) that it counts for.
        weights: its weight in each, [M] (host, not 0).
        condition: a row for each of these views.
    """

    views: Tensor
    weights: Tensor
    condition: Condition


@dataclass(frozen=True)
class Conditioning:
    """Conditions of V views, a row for each.

    Attributes:
        positive: y, the prompt as seen from each view.
        negative: n, the negative prompt.
        unconditional: the empty ("inverse") prompt.
        has_negative: true if a negative prompt was given; otherwise `negative` is that of the empty text.
        negative_is_unconditional: true if the two are the same text.
        perp_negatives: Perp-Neg's negatives, only those that count for some view; none without Perp-Neg.
    """

    positive: Condition
    negative: Condition
    unconditional: Condition
    has_negative: bool = False
    negative_is_unconditional: bool = False
    perp_negatives: tuple[PerpNegative, ...] = ()

    def some(self, views: Tensor) -> Conditioning:
        """Return the conditioning of the views [M] (int64, host) alone, without Perp-Neg."""
        return Conditioning(
            self.positive.rows(views),
            self.negative.rows(views),
            self.unconditional.rows(views),
            self.has_negative,
            self.negative_is_unconditional,
        )

    def with_part(self, name: str, rows: Tensor, unprompted: Tensor | None = None) -> Conditioning:
        """Return the same conditioning, with one more part of every condition.

        Args:
            rows: [V, ...] for the prompt, and for Perp-Neg's negatives, which ask for another side of the same thing.
            unprompted: [V, ...] for the negative and the empty prompt; None: `rows` too.
        """
        others = rows if unprompted is None else unprompted
        return replace(
            self,
            positive=self.positive.with_part(name, rows),
            negative=self.negative.with_part(name, others),
            unconditional=self.unconditional.with_part(name, others),
            perp_negatives=tuple(
                replace(
                    each,
                    condition=each.condition.with_part(
                        name, rows[each.views.to(rows.device, non_blocking=True)]
                    ),
                )
                for each in self.perp_negatives
            ),
        )

    def shown(self, pictures: Tensor) -> Conditioning:
        """Return the same conditioning, with pictures [views, n, 3, H, W] of each view for n ControlNets in every condition."""
        together = len(pictures) // len(self.positive)
        return self.with_part(PICTURES, pictures if together == 1 else pictures.unflatten(0, (-1, together)))


@dataclass(frozen=True)
class PerpNeg:
    """The strength with which Perp-Neg pushes a view away from the other views' prompts.

    Attributes:
        negative_w: the weight, below 0.
        front_decay_factor, side_decay_factor: its decay with the azimuth.
    """

    negative_w: float = -2.0
    front_decay_factor: float = 2.0
    side_decay_factor: float = 10.0

    def weights(self, azimuth: Tensor) -> Tensor:
        """Weights [V, 2] of the negatives ", front view" and ", side view" at azimuth [V] in degrees, 0 = front.

        r is that of `view_weights`. In the front half front counts e^(-r front_decay), or nothing where
        r > 0.8, and side e^(-(1 - r) side_decay), or nothing where r < 0.2. In the back half side counts half
        of e^(-r side_decay), or nothing where r > 0.8, and front counts fully. All of it is multiplied by
        negative_w, as in LucidDreamer.
        """
        turned = turned_by(azimuth)
        in_front = turned <= 1
        r = torch.where(in_front, 1 - turned, 2 - turned)
        front = torch.where(r > 0.8, 0.0, torch.exp(-r * self.front_decay_factor))
        side = torch.where(r < 0.2, 0.0, torch.exp(-(1 - r) * self.side_decay_factor))
        behind = torch.where(r > 0.8, 0.0, torch.exp(-r * self.side_decay_factor) / 2)
        weights = torch.stack(
            [torch.where(in_front, front, torch.ones_like(r)), torch.where(in_front, side, behind)], dim=-1
        )
        return self.negative_w * weights


@dataclass(frozen=True)
class ImagePrompt:
    """A picture of an asset's front, as an adapter's tokens.

    Attributes:
        shown: tokens [1, T, D] of the picture.
        blank: tokens [1, T, D] of no picture, for the negative and the empty prompt.
        scale: factor on what the tokens add, as seen from the front.
        behind: share of `scale` that is left as seen from behind.
    """

    shown: Tensor
    blank: Tensor
    scale: float = 1.0
    behind: float = 1.0

    def shares(self, azimuth: Tensor) -> Tensor:
        """Factors [V] on what the tokens add at azimuth [V] in degrees, 0 = front.

        They fall evenly with the cosine, from `scale` in front to `behind` of it at the back: the picture shows the front
        alone, and would make another face of the back.
        """
        facing = (1 + torch.cos(torch.deg2rad(azimuth))) / 2
        return self.scale * (self.behind + (1 - self.behind) * facing)

    def beside(self, conditioning: Conditioning, azimuth: Tensor) -> Conditioning:
        """Return a conditioning that has the tokens too, of views at azimuth [V] in degrees (host)."""
        shares = self.shares(azimuth).to(self.shown, non_blocking=True)[:, None, None]

        def rows(tokens: Tensor) -> Tensor:
            views = tokens.expand(len(shares), -1, -1)
            return torch.cat([views, shares.expand(-1, views.shape[1], 1)], dim=-1)

        return conditioning.with_part(IMAGE, rows(self.shown), rows(self.blank))


def turned_by(azimuth: Tensor) -> Tensor:
    """Turn [V] away from the front, |phi| / 90 in [0, 2], of azimuth [V] in degrees: 1 is the side, 2 the back."""
    return ((azimuth + 180.0) % 360.0 - 180.0).abs() / 90.0


def view_weights(azimuth: Tensor, polar: Tensor | None = None, angle_overhead: float = 30.0) -> Tensor:
    """Weights of the four view prompts, seen from an azimuth.

    The front half mixes front and side with r = 1 - |phi| / 90, the back half side and back with
    r = 1 - (|phi| - 90) / 90, as LucidDreamer does. From above (polar < angle_overhead) only the overhead
    prompt counts.

    Args:
        azimuth: [V] degrees, 0 = front; any real number, taken modulo 360.
        polar: [V] degrees from +z; None: never overhead.
        angle_overhead: degrees.
    Returns: [V, 4] weights of (front, side, back, overhead) that are not negative and sum to one.
    """
    turned = turned_by(azimuth)
    front = (1.0 - turned).clamp_min(0.0)
    back = (turned - 1.0).clamp_min(0.0)
    weights = torch.stack([front, 1.0 - front - back, back, torch.zeros_like(front)], dim=-1)
    if polar is None:
        return weights
    overhead = weights.new_tensor([0.0, 0.0, 0.0, 1.0])
    return torch.where((polar < angle_overhead)[:, None], overhead, weights)


def texts_of(text: str, negative: str, inverse: str, *, view_words: bool = True) -> list[str]:
    """List the texts of a run, all that it embeds: the prompt from each side, the negative and the inverse one.

    view_words: false for a prior that knows the view otherwise, by its camera or by an original.
    """
    prompts = [text + words for words in VIEW_WORDS] if view_words else [text]
    return [*prompts, negative, inverse]


class PromptEmbeddings:
    """A run's texts, embedded once.

    Args:
        encoder: the prior's text encoder.
        text: the prompt, without view words.
        negative: the negative prompt; empty for none.
        inverse: the text of the unconditional prediction (`inverse_text`), usually empty.
        angle_overhead: degrees from +z below which a view is from overhead.
        perp_neg: Perp-Neg's settings; None: without it.
        views_per_set: views that the prior sees together. Above 1 the prompt has no view words and Perp-Neg is off, for
            each row of a condition is a set and has the set's cameras.
        view_words: append words for the view to the prompt, which Perp-Neg needs; false for a prior that is shown an original.
        image: an image prompt beside the text, for a prior that sees each view alone; None: without it.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        text: str,
        *,
        negative: str = "",
        inverse: str = "",
        angle_overhead: float = 30.0,
        perp_neg: PerpNeg | None = None,
        views_per_set: int = 1,
        view_words: bool = True,
        image: ImagePrompt | None = None,
    ) -> None:
        view_words = view_words and views_per_set == 1
        self.texts = texts_of(text, negative, inverse, view_words=view_words)
        embedded, prompts = encoder.embed(self.texts), len(self.texts) - 2
        self._views = embedded.rows(torch.arange(prompts))
        self._negative, self._inverse = embedded[prompts], embedded[prompts + 1]
        self._has_negative, self._same = bool(negative.strip()), negative == inverse
        self._angle_overhead, self._perp_neg = angle_overhead, perp_neg if view_words else None
        self._views_per_set, self._image = views_per_set, image

    def at(self, azimuth: Tensor, polar: Tensor, *, mirrored: bool = False) -> Conditioning:
        """The conditions of views at azimuth [V] and polar [V], in degrees, on the host; a row for each set of them.

        mirrored: the images have left and right exchanged, which prompts do not name and cameras do.
        """
        if self._views_per_set > 1:
            return self._of_sets(-azimuth if mirrored else azimuth, polar)
        count = len(azimuth)
        conditioning = Conditioning(
            positive=self._views.mixed(view_weights(azimuth, polar, self._angle_overhead))
            if len(self._views) > 1
            else self._views.expand(count),
            negative=self._negative.expand(count),
            unconditional=self._inverse.expand(count),
            has_negative=self._has_negative,
            negative_is_unconditional=self._same,
            perp_negatives=self._perp_negatives(azimuth, polar),
        )
        return conditioning if self._image is None else self._image.beside(conditioning, azimuth)

    def _of_sets(self, azimuth: Tensor, polar: Tensor) -> Conditioning:
        cameras = camera_matrices(azimuth, polar).unflatten(0, (-1, self._views_per_set))
        positive, negative, unconditional = (
            row.expand(len(cameras)).seen_by(cameras) for row in (self._views, self._negative, self._inverse)
        )
        return Conditioning(positive, negative, unconditional, self._has_negative, self._same)

    def _perp_negatives(self, azimuth: Tensor, polar: Tensor) -> tuple[PerpNegative, ...]:
        if self._perp_neg is None:
            return ()
        # From above, neither of the two is a face that should not be there.
        weights = self._perp_neg.weights(azimuth) * (polar >= self._angle_overhead)[:, None]
        found = []
        for index, column in enumerate(weights.unbind(1)):
            views = torch.nonzero(column).squeeze(1)
            if len(views):
                condition = self._views[index].expand(len(views))
                found.append(PerpNegative(views, column[views], condition))
        return tuple(found)
