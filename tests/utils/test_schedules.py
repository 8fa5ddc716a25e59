from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.schedules import exponential, linear

rates = st.floats(1e-8, 1.0)


@given(rates, rates, st.integers(1, 10_000), st.floats(0.0, 1.0))
def test_exponential_is_a_straight_line_in_the_logarithm(a: float, b: float, steps: int, u: float) -> None:
    expected = math.log(a) + u * (math.log(b) - math.log(a))
    assert math.log(exponential(u * steps, a, b, steps)) == pytest.approx(expected, abs=1e-9)


def test_exponential_ends_and_stays() -> None:
    assert exponential(0, 1e-2, 1e-4, 100) == pytest.approx(1e-2)
    assert exponential(100, 1e-2, 1e-4, 100) == pytest.approx(1e-4)
    assert exponential(10_000, 1e-2, 1e-4, 100) == pytest.approx(1e-4)
    assert exponential(50, 0.0, 0.0, 100) == 0.0


def test_a_delay_starts_low_and_rises_to_the_plain_schedule() -> None:
    kept = {"initial": 1.0, "final": 0.1, "max_steps": 1000}
    ratios = [
        exponential(s, **kept, delay_steps=100, delay_mult=0.01) / exponential(s, **kept)
        for s in range(0, 201, 10)
    ]
    assert ratios[0] == pytest.approx(0.01)
    assert ratios[10:] == pytest.approx([1.0] * 11)
    assert all(a < b for a, b in pairwise(ratios[:11]))
    assert ratios[5] == pytest.approx(0.01 + 0.99 * math.sqrt(0.5))


def test_linear_ends_and_stays() -> None:
    assert [linear(s, 2.0, 8.0, 1000) for s in (-5, 0, 500, 1000, 5000)] == [2.0, 2.0, 5.0, 8.0, 8.0]
    assert linear(0, 2.0, 8.0, 0) == 8.0
