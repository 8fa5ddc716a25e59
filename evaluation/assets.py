"""Input and output of a scorer: an asset, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from config import Config
from gaussian_renderer import Gaussians

Features = NDArray[np.floating]
"""Features [V, D] of an asset's views, in the space that a scorer compares sets of images in."""


@dataclass(frozen=True)
class Asset:
    """Gaussians of a finished run, the prompt that they were made from, and the run's configuration."""

    gaussians: Gaussians
    prompt: str
    config: Config


@dataclass(frozen=True)
class Scores:
    """Scores of one asset.

    numbers: by the keys of the scorer's `columns`, without those that do not apply to this asset; features:
    for `score_set`, None for a scorer that has no use for them.
    """

    numbers: Mapping[str, float]
    features: Features | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ScoredAsset:
    """Remainder of an asset once it is scored: enough for the numbers of a set."""

    prompt: str
    config: Config
    features: Features = field(repr=False)
