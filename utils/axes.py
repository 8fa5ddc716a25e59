"""Axes as settings and exports name them: the directions up and to the front, such as 'z,x'."""

from __future__ import annotations

import re


def up_and_front(text: str) -> str | None:
    """Two different axes, each with or without a sign; spaces and plus signs are dropped. None for anything else."""
    axes = "".join(text.split()).replace("+", "").lower()
    found = re.fullmatch(r"-?([xyz]),-?([xyz])", axes)
    return None if found is None or found[1] == found[2] else axes
