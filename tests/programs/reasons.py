"""What is known to keep cells below what is wanted: with it, our own picture must be that of the program."""

from __future__ import annotations

from dataclasses import dataclass

from exporting.formats import MESHES, SPLATS
from tests.programs.cells import GOAL, OUTLINE_GOAL, Cell, missed
from tests.programs.kernels import Kernel

KNOWN_MESH_GOAL = 35.0
"""PSNR in dB to our own drawing of a mesh: edges and textures are filtered by each program in its own way."""


@dataclass(frozen=True)
class Reason:
    """Why a program shows less, and the way out.

    mark: its letter in the table; suffixes: what it is for; programs, assets: the same, empty for any; kernel, sh_degree:
    what the program draws or the file holds, None for all.
    """

    mark: str
    why: str
    suffixes: tuple[str, ...]
    programs: tuple[str, ...] = ()
    assets: tuple[str, ...] = ()
    kernel: Kernel | None = None
    sh_degree: int | None = None

    def is_for(self, cell: Cell) -> bool:
        return (
            cell.suffix in self.suffixes
            and (not self.programs or cell.program in self.programs)
            and (not self.assets or cell.asset in self.assets)
        )


REASONS = (
    Reason(
        "T",
        "three.js ends each Gaussian at two standard deviations, and makes small ones paler where it widens them. Spark "
        "draws the same files in three.js without either.",
        tuple(SPLATS),
        ("three",),
        kernel=Kernel(2.0, paler=True),
    ),
    Reason(
        "P",
        "PlayCanvas, and with it SuperSplat, lowers each Gaussian by 1.8 %, so that it ends at 2.8 standard deviations. It "
        "widens it by 0.075 square pixels where others take 0.3, and keeps sizes in steps of 8 %. Soft edges become thinner. "
        "Spark and Babylon draw the same files without that.",
        tuple(SPLATS),
        ("playcanvas", "supersplat"),
        kernel=Kernel(8**0.5, lowered=True, widened=0.075, step=21 / 255),
    ),
    Reason(
        "V",
        "`.splat` has no room for colours that change with the view. All other formats of Gaussians do.",
        (".splat",),
        assets=("stretched",),
        sh_degree=0,
    ),
    Reason(
        "M",
        "A mesh ends where Gaussians fade: three quarters of the error lie within six pixels of the outlines. Write "
        "Gaussians where a program takes them.",
        tuple(MESHES),
    ),
    Reason("S", "`.stl` has no colours, so it was drawn grey. `.glb` has them.", (".stl",)),
)


def reasons_for(cell: Cell) -> list[Reason]:
    """Known reasons of a cell."""
    return [reason for reason in REASONS if reason.is_for(cell)]


def is_right(cell: Cell) -> bool:
    """Whether a cell is as good as wanted, or as good as that to our own picture with what is known of it."""
    if not missed(cell):
        return True
    if cell.known_psnr is None or cell.known_outline is None:
        return False
    goal = KNOWN_MESH_GOAL if cell.suffix in MESHES else GOAL
    return cell.known_psnr >= goal and cell.known_outline >= OUTLINE_GOAL
