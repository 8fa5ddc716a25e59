"""Axes as settings and exports name them: the directions up and to the front, such as 'z,x'.

They are right-handed, unless ',left' follows, as in Unity's 'y,z,left': there the third axis is mirrored. A file's
note of its axes is `up -y, front -z`, or in JSON {"up": "-y", "front": "-z"}; left-handed ones add `, left-handed` or
"hand": "left".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

LEFT = "left"


def up_and_front(text: str) -> str | None:
    """Two different axes, each with or without a sign, and perhaps ',left'; spaces and plus signs are dropped.

    None for anything else.
    """
    axes = "".join(text.split()).replace("+", "").lower()
    found = re.fullmatch(rf"-?([xyz]),-?([xyz])(,{LEFT})?", axes)
    return None if found is None or found[1] == found[2] else axes


def parts(axes: str) -> tuple[str, str, bool]:
    """The directions up and to the front of such axes, and whether they are left-handed."""
    up, front, *hand = axes.split(",")
    return up, front, bool(hand)


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
    up, front, left = parts(axes)
    return {"up": up, "front": front} | ({"hand": LEFT} if left else {})


def axes_of_note(found: Any) -> str | None:
    """Axes of a note in a file's JSON, or None for anything else."""
    if not isinstance(found, dict):
        return None
    words = [found.get("up"), found.get("front"), *([found["hand"]] if "hand" in found else [])]
    return up_and_front(",".join(words)) if all(isinstance(word, str) for word in words) else None


def note_line(axes: str) -> str:
    """Note for a line of text."""
    up, front, left = parts(axes)
    return f"up {up}, front {front}{', left-handed' if left else ''}"


def axes_of_line(line: str) -> str | None:
    """Axes of a note in a line of text, or None for anything else."""
    found = re.fullmatch(r"\s*up\s+(\S{1,2})\s*,\s*front\s+(\S{1,2})\s*(,\s*left-handed\s*)?", line)
    return (
        None if found is None else up_and_front(f"{found[1]},{found[2]}" + (f",{LEFT}" if found[3] else ""))
    )
