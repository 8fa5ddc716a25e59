"""Programs that open exported files, and the axes and units in which each takes them."""

from __future__ import annotations

from dataclasses import dataclass

from scene.axes import Y_UP
from utils.axes import note_line

UNITS = {1.0: "metres", 100.0: "centimetres", 1000.0: "millimetres"}
LENGTHS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Units of --size, in metres."""


@dataclass(frozen=True)
class Frame:
    """Axes of a file (see `scene.axes`), and its units in a metre. A world unit of ours counts as a metre."""

    axes: str
    unit: float = 1.0

    def __str__(self) -> str:
        return f"{note_line(self.axes)}, {UNITS[self.unit]}"


PRINTED = Frame("z,-y", 1000.0)
"""What programs for 3D printers take numbers for."""
SAME = Frame(Y_UP)
HALF_TURN = Frame("-y,z")
"""Of programs that turn files of Gaussians by half a turn around z, or mirror their y: what is y up there, z to the front."""
RAW_Z_UP = Frame("z,-y")

TARGETS: dict[str, dict[str, Frame]] = {
    "three": {".glb": SAME, ".spz": SAME, ".ply": SAME, ".splat": SAME, ".splat.glb": SAME, ".obj": SAME},
    "spark": {
        ".spz": SAME,
        ".ply": SAME,
        ".compressed.ply": SAME,
        ".splat": SAME,
        ".sog": SAME,
        ".glb": SAME,
    },
    "playcanvas": {
        ".sog": SAME,
        ".ply": SAME,
        ".compressed.ply": SAME,
        ".splat.glb": SAME,
        ".glb": SAME,
    },
    "supersplat": {
        ".ply": HALF_TURN,
        ".compressed.ply": HALF_TURN,
        ".splat": HALF_TURN,
        ".spz": HALF_TURN,
        ".sog": HALF_TURN,
    },
    "babylon": {
        ".splat.glb": SAME,
        ".ply": HALF_TURN,
        ".compressed.ply": HALF_TURN,
        ".splat": HALF_TURN,
        ".spz": HALF_TURN,
        ".sog": HALF_TURN,
        ".glb": SAME,
        ".obj": SAME,
    },
    "cesium": {".spz.glb": SAME, ".glb": SAME},
    # Importers of meshes turn what glTF and OBJ have to their own axes; those of Gaussians take numbers as they are.
    "unity": {".ply": Frame("y,z,left"), ".glb": SAME, ".obj": SAME},
    "unreal": {".ply": Frame("z,x,left", 100.0), ".glb": SAME},
    "blender": {
        ".glb": SAME,
        ".obj": SAME,
        ".usdz": SAME,
        ".usdc": SAME,
        ".ply": RAW_Z_UP,
        ".mesh.ply": RAW_Z_UP,
        ".stl": RAW_Z_UP,
    },
}
"""Frames of each program's formats, by the end of a file's name. The first format is that of a name without an end."""


def frame_for(program: str, suffix: str) -> Frame:
    """Axes and unit in which a program takes a format. Raises ValueError, one sentence, if it does not take it."""
    frames = TARGETS[program]
    if suffix not in frames:
        raise ValueError(f"--for {program} writes {', '.join(frames)}, but not {suffix}.")
    return frames[suffix]


def length(text: str) -> float:
    """A length such as 0.3m, 30cm or 300 mm in metres; one without a unit is in metres.

    Raises ValueError, one sentence, for anything else.
    """
    words = text.strip().lower()
    unit = next((unit for unit in ("cm", "mm", "m") if words.endswith(unit)), "")
    try:
        found = float(words.removesuffix(unit)) * LENGTHS.get(unit, 1.0)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ValueError(f"size is {text!r}, but it must be a length above 0, such as 0.3m, 30cm or 300mm.")
    return found
