"""What toybox's assets start from, as settings of the command line."""

from __future__ import annotations

from pathlib import Path

from toybox.captions import parse
from toybox.runs import Settings
from toybox.splats import rough_point_cloud, write_points

START_NAMES = ("pointe", "sphere", "rough")
SPHERE: Settings = {"init_shape": "sphere", "position_lr_init": "0.002", "position_lr_final": "0.0003"}
ROUGH_RATES: Settings = {"position_lr_init": "0.0004", "position_lr_final": "0.00006"}
"""A shape that is nearly right is to be kept, not found."""


def start_settings(start: str, prompt: str, seed: int) -> Settings:
    """Settings of one of START_NAMES: Point-E with the configuration's own learning rates, a sphere, or grey points astray
    from the toy's true surface, which are written to a file. Raises ValueError if a prompt names no toy."""
    if start == "pointe":
        return {"init_shape": "pointe"}
    if start == "sphere":
        return SPHERE
    kind, color = parse(prompt)
    path = Path("outputs/starts") / f"{color}-{kind}-{seed}.ply"
    write_points(path, rough_point_cloud(kind, color, seed))
    return {"init_shape": path.as_posix(), **ROUGH_RATES}
