"""The contract of guidance: a prior's answers, a method's result, and what the training loop gets.

Most priors see each view alone. One that sees several together takes a set of them as one row of everything: latents
[V / n, n, C, h, w], a time, a generator and a condition for each set. So a method has one time and one draw for a set
without a line of its own, and never parts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.prompts import Conditioning
from guidance.schedule import Schedule


@dataclass(frozen=True)
class Prediction:
    """Prediction of a prior at (z_t, t): z_t = alpha_t clean + sigma_t eps. Guidance is linear in both.

    Attributes:
        eps: the noise, shaped like z_t.
        clean_of: function that returns the clean sample. Diffusion rarely needs it, and then nothing is computed.
    """

    eps: Tensor
    clean_of: Callable[[], Tensor]

    @cached_property
    def clean(self) -> Tensor:
        """The clean sample, shaped like z_t."""
        return self.clean_of()

    def detach(self) -> Prediction:
        """Return the same without its graph."""
        return Prediction(self.eps.detach(), lambda: self.clean.detach())


class Prior(Protocol):
    """A model of noise, v, flow or clean samples, as the guidances see it. Only it knows which, and its latents' shape."""

    @property
    def schedule(self) -> Schedule:
        """Noise levels, and the times that the network is told."""

    @property
    def views_per_set(self) -> int:
        """Number n of views that the network sees together, which is 1 for most; V is a multiple of it."""

    def encode(self, images: Tensor) -> Tensor:
        """Latents z_0 [V / n, ...] float32 of images [V, 3, H, W] in [0, 1]; differentiable."""

    def decode(self, z: Tensor) -> Tensor:
        """Images [V, 3, H', W'] in [0, 1] of clean latents z [V / n, ...]."""

    def predict(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Prediction, float32, at latents z [B, ...] and timesteps t [B] (host) under B conditions."""


@dataclass(frozen=True)
class PixelGradient:
    """A gradient with respect to the colours, strength (D(reference) - D(target)), as in Eq. 14's L_CP.

    Attributes:
        reference, target: clean latents [V, ...].
        strength: includes the 2 of the square, the weight and the 1 / V of the mean.
    """

    reference: Tensor
    target: Tensor
    strength: float


@dataclass(frozen=True)
class Imagined:
    """Clean sample that the prior predicts of V views under the prompt, at the noisiest time that a method asks it.

    Attributes:
        clean: function that returns the clean latents [V, ...] that it predicts.
        t: timesteps [V] (host).
    """

    clean: Callable[[], Tensor]
    t: Tensor


@dataclass(frozen=True)
class SeenPoses:
    """Poses that a classifier has seen in V views.

    Attributes:
        posterior: [V, C], the probability of each pose.
        interval: [V] int64, the part of the times that each view's noise belongs to.
    """

    posterior: Tensor
    interval: Tensor


@dataclass(frozen=True)
class Gradient:
    """The gradient that a method wants for V latents z_0 [V, ...], of a view or a set each; all of it is detached.

    Attributes:
        parts: by name, shaped like z_0 and weighted: they add up to the gradient with respect to z_0.
        times: by name, the timesteps [V] (host) that it looked at.
        predictions: by name, functions that return the clean latents its branches predict, shaped like z_0. Few
            iterations make a picture of them.
        pixels: a gradient with respect to the colours besides, those of disparity images too.
        imagined: what `rectify_poses` weighs; without it a run cannot have that.
    """

    parts: Mapping[str, Tensor]
    times: Mapping[str, Tensor]
    predictions: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    pixels: PixelGradient | None = None
    imagined: Imagined | None = None


class Method(Protocol):
    """A way of distilling a prior. It sees latents only; `Guidance` takes care of the rest."""

    def __call__(
        self, z0: Tensor, conditioning: Conditioning, step: int, rngs: Sequence[torch.Generator]
    ) -> Gradient:
        """Return the gradient for detached latents z0 [V, ...] at iteration `step` (from 0).

        `rngs` holds a host generator for each row. Gradients are not being recorded during the call.
        """


@dataclass(frozen=True)
class GuidanceOutput:
    """A scalar to differentiate, and what to look at.

    Attributes:
        loss: the scalar.
        times: by name, the mean over views of the timesteps that the method looked at.
        diagnostics: values to log: numbers, and detached scalars left on their device.
        gradient: [V, ...] with respect to the latents, scaled.
        predictions: by name, functions that return the clean latents [V, ...] that the method's branches
            predict.
        poses: poses that were seen in the views, where `rectify_poses` weighs them.
    """

    loss: Tensor
    times: dict[str, float]
    diagnostics: dict[str, Tensor | float]
    gradient: Tensor
    predictions: Mapping[str, Callable[[], Tensor]]
    poses: SeenPoses | None = None
