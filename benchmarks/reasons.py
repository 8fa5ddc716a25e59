"""Reason why a measurement has no figures, in one line."""

from __future__ import annotations


def reason(error: Exception) -> str:
    """Return the kind and the first line of what went wrong, in 400 characters at most."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:400]
