"""Cells of the table: what one program shows of one file, and how good it must be."""

from __future__ import annotations

from dataclasses import dataclass

from exporting.formats import SPLATS

GOAL, MESH_GOAL, OUTLINE_GOAL = 38.0, 27.0, 0.95
"""PSNR in dB of Gaussians and of meshes, and intersection over union of outlines, that each cell must have."""


@dataclass(frozen=True)
class Cell:
    """One file in one program.

    psnr [dB] and outline (intersection over union) are the least over the cameras, to our own render of the Gaussians,
    None where there is no picture; fault: what stopped it, or an empty text. known_psnr and known_outline are the same
    to our own picture with all that is known of the program, the format and the mesh: see `reasons.py`. They are None
    where the cell is as good as wanted.
    """

    program: str
    suffix: str
    asset: str
    psnr: float | None = None
    outline: float | None = None
    fault: str = ""
    known_psnr: float | None = None
    known_outline: float | None = None


def missed(cell: Cell) -> bool:
    """Whether a cell is below what is wanted."""
    if cell.psnr is None or cell.outline is None:
        return bool(cell.fault)
    return cell.psnr < (GOAL if cell.suffix in SPLATS else MESH_GOAL) or cell.outline < OUTLINE_GOAL
