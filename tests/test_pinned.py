"""First iterations of every method on toybox, against the numbers in pinned.json: no tidying changes them."""

from __future__ import annotations

import json

import pytest

from tests.pinned import METHODS, PINS, STARTS, facts

PINNED = json.loads(PINS.read_text())
STEADY, LATER = 2e-4, 2e-2
"""Relative tolerances. The portable and the AVX2 rasterizer differ by 6e-6 in the first two iterations. Adam turns rounding
into steps where a gradient is nearly 0: from the third one on norms differ by up to 3e-3."""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", METHODS)
def test_the_first_iterations_are_as_pinned(method: str, start: str) -> None:
    found, pinned = facts(method, start), PINNED[f"{method}, {start}"]
    assert found.keys() == pinned.keys()
    wrong = {
        name: (value, pinned[name])
        for name, value in found.items()
        if value
        != pytest.approx(pinned[name], rel=STEADY if name.startswith(("1 ", "2 ")) else LATER, abs=1e-5)
    }
    assert not wrong
