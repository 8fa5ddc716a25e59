"""Values that change over the iterations."""

from __future__ import annotations

import math


def exponential(
    step: float,
    initial: float,
    final: float,
    max_steps: int,
    *,
    delay_steps: int = 0,
    delay_mult: float = 1.0,
) -> float:
    """Interpolate geometrically from `initial` at step 0 to `final` at `max_steps`, and `final` from there on.

    rate = d · initial^(1-u) · final^u, u = clip(step / max_steps, 0, 1). With `delay_steps`, d rises along a
    quarter sine from `delay_mult` to 1 over that many steps (Mip-NeRF's schedule); without, d is 1.
    """
    u = _clip(step / max_steps)
    delay = 1.0
    if delay_steps > 0:
        delay = delay_mult + (1.0 - delay_mult) * math.sin(0.5 * math.pi * _clip(step / delay_steps))
    return delay * initial ** (1.0 - u) * final**u


def linear(step: float, initial: float, final: float, max_steps: float) -> float:
    """Interpolate on a straight line from `initial` at step 0 to `final` from `max_steps` on (at once if that is 0)."""
    u = _clip(step / max_steps) if max_steps > 0 else 1.0
    return initial + (final - initial) * u


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
