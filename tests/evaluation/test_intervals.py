"""Intervals against those of scipy's t-tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from evaluation.intervals import estimate, over_seeds, paired


def test_the_interval_is_that_of_a_t_test_over_the_means_of_the_seeds() -> None:
    values = np.random.default_rng(0).normal(3, 1, size=(4, 10))
    found = over_seeds({seed: row.tolist() for seed, row in enumerate(values)})
    low, high = ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.count == 4


def test_the_interval_of_a_difference_is_that_of_a_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 20))
    found = paired(a.tolist(), b.tolist())
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    alone = estimate([2.5])
    assert (alone.mean, alone.half) == (2.5, None)
    with pytest.raises(ValueError, match="empty"):
        estimate([])


def test_95_of_100_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 3))
    held = [abs(found.mean) <= found.half for found in map(estimate, draws)]
    # Five standard deviations of the share.
    assert np.mean(held) == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 4000) ** 0.5)
