"""The Fréchet distance against its closed forms, and against torchmetrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from evaluation.frechet import Moments, frechet_distance


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Moments.of(a), Moments.of(b))


def features(mean: np.ndarray, factor: np.ndarray, rng: np.random.Generator, count: int = 400) -> np.ndarray:
    """Samples whose mean is exactly `mean` [D] and whose covariance is exactly factor factorᵀ [D, D]."""
    z = rng.standard_normal((count, len(mean)))
    z -= z.mean(axis=0)
    white = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / (count - 1))).T
    return mean + white @ factor.T


def test_frechet_distance_of_independent_axes_is_that_of_means_and_deviations(
    rng: np.random.Generator,
) -> None:
    means, deviations = rng.standard_normal((2, 6)), rng.uniform(0.1, 3, (2, 6))
    a, b = (features(mean, np.diag(deviation), rng) for mean, deviation in zip(means, deviations))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_agrees_with_the_matrix_square_root(rng: np.random.Generator) -> None:
    means, factors = rng.standard_normal((2, 5)), rng.standard_normal((2, 5, 5))
    a, b = (features(mean, factor, rng) for mean, factor in zip(means, factors))
    sigma_a, sigma_b = (factor @ factor.T for factor in factors)
    root = scipy.linalg.sqrtm(sigma_a @ sigma_b).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(sigma_a + sigma_b - 2 * root)
    assert distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_bears_fewer_samples_than_features(rng: np.random.Generator) -> None:
    few = rng.standard_normal((7, 30))
    # The square roots of eigenvalues that are 0 but for rounding, which differs from one machine to another.
    assert distance(few, few) == pytest.approx(0, abs=1e-5)
    assert distance(few, few + 2) == pytest.approx(4 * 30, rel=1e-6)


class Given(nn.Module):
    """Network whose features are its input."""

    num_features = 6

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_it_agrees_with_torchmetrics(rng: np.random.Generator) -> None:
    a, b = (
        rng.standard_normal((count, 6)) @ rng.standard_normal((6, 6)) + shift
        for count, shift in ((50, 0), (70, 1))
    )
    metric = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert distance(a, b) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_moments_are_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    path, made = tmp_path / "a" / "moments.npz", []

    def make() -> Moments:
        made.append(Moments.of(rng.standard_normal((9, 3)).astype(np.float32)))
        return made[0]

    first, second = Moments.kept(path, make), Moments.kept(path, make)
    assert len(made) == 1
    assert frechet_distance(first, second) == pytest.approx(0, abs=1e-12)
    assert np.array_equal(first.covariance, made[0].covariance)


def test_one_feature_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 features, but there are 1"):
        Moments.of(np.zeros((1, 3)))
