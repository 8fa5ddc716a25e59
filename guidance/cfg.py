"""Classifier-free guidance. (Perp-Neg's per-view negatives would be further conditions of the same batch.)"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from guidance.base import Prior


def predict(
    prior: Prior, z: torch.Tensor, t: torch.Tensor, conditions: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Noise predictions at one (z, t) under several conditions, all in one batch through the network.

    Args:
        z: [V, ...] latents.
        t: [V] timesteps on the host.
        conditions: C embeddings [V, L, D].
    Returns: C predictions shaped like z.
    """
    count = len(conditions)
    batch = z.repeat(count, *[1] * (z.dim() - 1))
    return prior.eps(batch, t.repeat(count), torch.cat(list(conditions))).chunk(count)


def combine(eps_n: torch.Tensor, eps_y: torch.Tensor, omega: float) -> torch.Tensor:
    """eps^omega = eps_n + omega (eps_y - eps_n): omega = 1 is the plain conditional prediction."""
    return eps_n + omega * (eps_y - eps_n)
