from __future__ import annotations

import math

import pytest
import torch
from scipy.special import sph_harm_y

from utils.spherical_harmonics import Y00, dc_to_rgb, degree_of, num_coefficients, rgb_to_dc


def test_the_constant_harmonic() -> None:
    assert pytest.approx(sph_harm_y(0, 0, 0.3, 0.4).real) == Y00
    assert pytest.approx(1.0) == Y00**2 * 4 * math.pi


def test_colours_and_coefficients_are_inverse() -> None:
    rgb = torch.rand(10, 3, dtype=torch.float64)
    torch.testing.assert_close(dc_to_rgb(rgb_to_dc(rgb)), rgb)
    assert rgb_to_dc(torch.tensor(0.5)).item() == 0.0


def test_degrees_and_numbers_are_inverse() -> None:
    assert [degree_of(num_coefficients(d)) for d in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="5 harmonics"):
        degree_of(5)
