"""Axes as settings and exports name them: the directions up and to the front, such as 'z,x'.

A file's note of its axes is `up -y, front -z`, or in JSON {"up": "-y", "front": "-z"}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def up_and_front(text: str) -> str | None:
    """Two different axes, each with or without a sign; spaces and plus signs are dropped. None for anything else."""
    axes = "".join(text.split()).replace("+", "").lower()
    found = re.fullmatch(r"-?([xyz]),-?([xyz])", axes)
    return None if found is None or found[1] == found[2] else axes


def attached(arguments: Iterable[str]) -> list[str]:
    """Arguments of a command with axes such as '-y,-z' joined to the flag before them, as argparse needs it."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--axes", "--input_axes") and re.match(r"-[xyzXYZ]\s*,", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def note(axes: str) -> dict[str, str]:
    """Note for a file's JSON."""
    up, front = axes.split(",")
    return {"up": up, "front": front}


def axes_of_note(found: Any) -> str | None:
    """Axes of a note in a file's JSON, or None for anything else."""
    if not isinstance(found, dict):
        return None
    up, front = found.get("up"), found.get("front")
    return up_and_front(f"{up},{front}") if isinstance(up, str) and isinstance(front, str) else None


def note_line(axes: str) -> str:
    """Note for a line of text."""
    return "up {up}, front {front}".format(**note(axes))


def axes_of_line(line: str) -> str | None:
    """Axes of a note in a line of text, or None for anything else."""
    found = re.fullmatch(r"\s*up\s+(\S{1,2})\s*,\s*front\s+(\S{1,2})\s*", line)
    return None if found is None else up_and_front(f"{found[1]},{found[2]}")
