"""Noise schedules that the models were trained with, seen from the noise levels of a Karras sampler."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAX_BETA = 0.999


def betas(schedule: Literal["cosine", "linear"], timesteps: int) -> NDArray[np.float64]:
    """Betas [timesteps]: cosine (Nichol & Dhariwal, 2021, Eq. 17), or linear (Ho et al., 2020) for any number
    of steps.
    """
    if schedule == "linear":
        found = np.linspace(0.1 / timesteps, 20.0 / timesteps, timesteps)
    else:
        edges = np.arange(timesteps + 1) / timesteps
        signal = np.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
        found = np.minimum(1 - signal[1:] / signal[:-1], MAX_BETA)
    return found.astype(np.float64)


def alphas_cumprod(schedule: Literal["cosine", "linear"], timesteps: int) -> NDArray[np.float64]:
    """Products ᾱ_t [timesteps], falling."""
    return (1 - betas(schedule, timesteps)).cumprod()


def timestep_of(sigma: float, abar: NDArray[np.float64]) -> int:
    """The timestep whose noise is `sigma` times its signal: σ² = (1 - ᾱ_t)/ᾱ_t, rounded down, kept in range."""
    times = np.arange(len(abar), dtype=np.float64)
    return int(np.interp(1 / (sigma**2 + 1), abar[::-1], times[::-1]))
