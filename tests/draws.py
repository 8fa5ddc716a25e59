"""Generators for the views of a test."""

from __future__ import annotations

import torch

from utils.rng import Draws


def rngs(count: int, seed: int = 0) -> list[torch.Generator]:
    """Generators for `count` views, one each."""
    return Draws(seed).of_views("timesteps", 1, range(count))
