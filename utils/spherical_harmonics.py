"""Colours and their coefficients in real spherical harmonics."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)

Y00 = 0.5 / math.sqrt(math.pi)
"""The constant harmonic of degree 0."""


def num_coefficients(degree: int) -> int:
    """Number of harmonics up to `degree`."""
    return (degree + 1) ** 2


def degree_of(num_harmonics: int) -> int:
    """The degree in 0..3 with `num_harmonics` harmonics up to it. Raises ValueError if there is none."""
    for degree in range(4):
        if num_coefficients(degree) == num_harmonics:
            return degree
    raise ValueError(f"{num_harmonics} harmonics per colour are given, but it must be 1, 4, 9 or 16 of them.")


def rgb_to_dc(rgb: Number) -> Number:
    """Degree-0 coefficients of colours in [0, 1]; the rasterizer adds 0.5 to the sum of harmonics."""
    return (rgb - 0.5) / Y00


def dc_to_rgb(dc: Tensor) -> Tensor:
    """Colours of degree-0 coefficients, the inverse of rgb_to_dc; not clamped."""
    return dc * Y00 + 0.5
