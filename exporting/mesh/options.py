"""Options of export.py for meshes, in a file without the libraries that only meshes need."""

from __future__ import annotations

from dataclasses import dataclass

OUTLINE_ROUNDS = 2
"""How often the outlines are fitted."""


@dataclass(frozen=True)
class MeshOptions:
    """Sizes of a mesh and of its making.

    Attributes:
        faces: their largest number.
        texture: texels along a side.
        resolution: steps of the grid along the asset's longest side.
        views: cameras all around, for the shape, its outlines and the texture each.
    """

    faces: int = 10_000
    texture: int = 1024
    resolution: int = 128
    views: int = 64

    @property
    def steps(self) -> int:
        """Number of times that `build_mesh` reports progress."""
        return (2 + OUTLINE_ROUNDS) * self.views + 1
