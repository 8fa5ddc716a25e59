"""Means and what they are worth: 95% confidence intervals by Student's t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as students_t


@dataclass(frozen=True)
class Estimate:
    """Interval mean ± half; half is None where a single value shows no scatter. count: how many values it is of."""

    mean: float
    half: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values and its 95% interval. Raises ValueError without values."""
    if not len(values):
        raise ValueError("values is empty, but a mean needs at least one.")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Estimate(mean, None, 1)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return Estimate(mean, float(students_t.ppf(0.975, len(values) - 1) * error), len(values))


def over_seeds(values: Mapping[int, Sequence[float]]) -> Estimate:
    """The estimate of values by seed, one for each prompt. Its scatter is that of the seeds' means, for
    prompts are easy or hard.
    """
    return estimate([float(np.mean(some)) for some in values.values()])


def paired(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """The estimate of a - b, pair by pair."""
    return estimate(np.subtract(a, b).tolist())
