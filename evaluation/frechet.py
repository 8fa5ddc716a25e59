"""The Fréchet distance of two sets of features, each taken for a Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.assets import Features
from utils.files import atomic_path

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] (over N - 1) of N features, float64."""

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, features: Features) -> Moments:
        """Moments of features [N, D]. Raises ValueError if they are fewer than 2."""
        if len(features) < 2:
            raise ValueError(f"A covariance needs at least 2 features, but there are {len(features)}.")
        x = features.astype(np.float64)
        return cls(x.mean(axis=0), np.cov(x, rowvar=False).reshape([x.shape[1]] * 2))

    @classmethod
    def kept(cls, path: Path, make: Callable[[], Moments]) -> Moments:
        """Moments from the file `path` (.npz), which is first written from what `make` returns if it is not there."""
        if not path.exists():
            with atomic_path(path) as temporary:
                np.savez(temporary, **vars(make()))
        with np.load(path) as arrays:
            return cls(**arrays)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) (Heusel et al., 2017, Eq. 6)."""
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½, and none is negative but by rounding.
    values, vectors = np.linalg.eigh(a.covariance)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(product).sum())
