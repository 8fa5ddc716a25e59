"""Turns of two priors in one run: a multi-view prior shapes the asset, and another one gives it its look."""

from __future__ import annotations

from math import floor


def share_at(share: float, progress: float) -> float:
    """Return the share of iterations that the multi-view prior guides at `progress` in [0, 1] of a run.

    It falls evenly, from min(1, 2 share) to max(0, 2 share - 1): the mean is `share`.
    """
    first, last = min(1.0, 2 * share), max(0.0, 2 * share - 1)
    return first + (last - first) * progress


def guides(share: float, step: int, iterations: int) -> bool:
    """Return whether the multi-view prior guides iteration `step`, from 1, of `iterations`.

    Its turns are dealt out evenly, without a draw: it guides where the shares so far come to one more whole turn. In all it
    guides `share` of the iterations, rounded.
    """
    return _turns(share, step, iterations) > _turns(share, step - 1, iterations)


def _turns(share: float, done: int, iterations: int) -> int:
    """Count its turns among the first `done` iterations: the integral of `share_at`, rounded."""
    progress = done / iterations
    return floor(iterations * progress * (share_at(share, 0) + share_at(share, progress)) / 2 + 0.5)
