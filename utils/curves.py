"""Curves as a small picture, SVG, for a page that is read in the repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 250, 150, 34
SMOOTHING = 0.02
"""Share of a curve that the running median spans, if that is more than one value."""
MARKED = 60
"""Values of a curve, at most, each of which gets a dot."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A title and values [N] at steps [N]."""

    title: str
    steps: Array
    values: Array
    logarithmic: bool


def smoothed(values: Array) -> Array:
    """Return the running median. A short curve stays as it is: a median of three of its values would flatten it."""
    reach = round(len(values) * SMOOTHING / 2)
    return np.array([np.median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))])


def _labels(low: float, high: float) -> tuple[str, str]:
    """Format the ends of an axis, such as 0.0021 and 63.6 or 2,048 and 6,000, in as many digits as tell them apart."""
    texts = ("", "")
    for digits in range(3, 10):
        texts = (_short(low, digits), _short(high, digits))
        if texts[0] != texts[1]:
            break
    return texts


def _short(value: float, digits: int) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(digits, whole)}g}" if whole <= 6 else f"{value:.{digits}g}"


def _panel(curve: Curve, left: float) -> str:
    values = np.log10(curve.values) if curve.logarithmic else curve.values
    # Of many values a few outliers may leave the picture, of few none.
    low, high = np.percentile(values, (0, 100) if len(values) <= MARKED else (0.5, 99.5))
    inner_width, inner_height = WIDTH - MARGIN - 12, HEIGHT - 2 * MARGIN + 8
    x = left + MARGIN + curve.steps / curve.steps.max() * inner_width
    shown = np.clip((smoothed(values) - low) / max(high - low, 1e-9), 0, 1)
    y = MARGIN - 4 + (1 - shown) * inner_height
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    dots = [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="#c33"/>' for a, b in zip(x, y)]
    bottom_text, top_text = _labels(*(10**end if curve.logarithmic else end for end in (low, high)))
    bottom = MARGIN - 4 + inner_height
    return "\n".join(
        [
            f'<text x="{left + MARGIN}" y="16" font-weight="bold">{escape(curve.title)}</text>',
            f'<path d="M{left + MARGIN} {MARGIN - 4}V{bottom}h{inner_width}" fill="none" stroke="#999"/>',
            f'<text x="{left + MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{top_text}</text>',
            f'<text x="{left + MARGIN - 4}" y="{bottom}" text-anchor="end">{bottom_text}</text>',
            f'<text x="{left + MARGIN + inner_width}" y="{bottom + 14}" text-anchor="end">'
            f"{curve.steps.max() + 1:.0f} steps</text>",
            f'<polyline points="{line}" fill="none" stroke="#c33" stroke-width="1.3"/>',
            *(dots if len(dots) <= MARKED else []),
        ]
    )


def svg(curves: Sequence[Curve]) -> str:
    width = WIDTH * len(curves)
    panels = "\n".join(_panel(curve, index * WIDTH) for index, curve in enumerate(curves))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" '
        f'font-size="10"><rect width="{width}" height="{HEIGHT}" fill="#fff"/>\n{panels}\n</svg>\n'
    )
