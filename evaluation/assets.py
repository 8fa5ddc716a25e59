"""What a scorer is told of an asset, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from config import Config
from gaussian_renderer import Gaussians

Features = NDArray[np.floating]
"""[V, D]: an asset's views in the space that a scorer compares sets of images in."""


@dataclass(frozen=True)
class Asset:
    """A finished run's Gaussians, the prompt that they were made from, and the run's configuration."""

    gaussians: Gaussians
    prompt: str
    config: Config


@dataclass(frozen=True)
class Scores:
    """numbers: by the keys of the scorer's `columns`, without those that cannot be said of this asset; features: for
    `score_set`, None for a scorer that has no use for them."""

    numbers: Mapping[str, float]
    features: Features | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ScoredAsset:
    """What is left of an asset once it is scored: enough for the numbers of a set."""

    prompt: str
    config: Config
    features: Features = field(repr=False)
