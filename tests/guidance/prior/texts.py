"""A prior of one tensor of text, called with that tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guidance.condition import Condition
from guidance.prior import StableDiffusionPrior


def embedded(prior: StableDiffusionPrior, prompts: Sequence[str]) -> Tensor:
    """Texts [P, L, D] of P prompts."""
    return prior.embed(prompts).parts["text"]


def noise_by(prior: StableDiffusionPrior, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """Noise [B, ...] that it predicts at z [B, ...] and t [B] under text [B, L, D]."""
    return prior.predict(z, t, Condition({"text": text})).eps


def abar_of(prior: StableDiffusionPrior) -> Tensor:
    """Noise levels abar_t [T] of a prior of diffusion."""
    return prior.schedule.alpha(torch.arange(prior.schedule.num_timesteps)) ** 2
