"""Numbers on the command lines of the programs beside train.py."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a whole number of at least `low` and, if given, at most `high`."""
    bounds = f"from {low} on" if high is None else f"from {low} to {high}"

    def number(text: str) -> int:
        if (
            not (text.isascii() and text.isdecimal())
            or int(text) < low
            or (high is not None and int(text) > high)
        ):
            raise ArgumentTypeError(f"{text} must be a whole number {bounds}")
        return int(text)

    return number
