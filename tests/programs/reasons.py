"""What keeps cells below what is wanted, and how low they may be for it: anything less is a fault."""

from __future__ import annotations

from dataclasses import dataclass

from exporting.formats import SPLATS
from tests.programs.museum import GOAL, MESH_GOAL, OUTLINE_GOAL, Cell


@dataclass(frozen=True)
class Reason:
    """Why a program shows less, and the way out.

    mark: its letter in the table; cells: programs, suffixes and assets that it is for, empty for any; psnr, outline: what
    there must be all the same.
    """

    mark: str
    why: str
    programs: tuple[str, ...]
    suffixes: tuple[str, ...]
    assets: tuple[str, ...]
    psnr: float
    outline: float


REASONS: tuple[Reason, ...] = ()


def goals(cell: Cell) -> tuple[float, float]:
    """PSNR in dB and outline that are wanted of a cell."""
    return (GOAL if cell.suffix in SPLATS else MESH_GOAL), OUTLINE_GOAL


def missed(cell: Cell) -> bool:
    """Whether a cell is below what is wanted."""
    if cell.fault or cell.psnr is None or cell.outline is None:
        return bool(cell.fault)
    psnr, outline = goals(cell)
    return cell.psnr < psnr or cell.outline < outline


def reason_for(cell: Cell) -> Reason | None:
    """The reason that is known for a cell."""
    for reason in REASONS:
        if (
            cell.program in reason.programs
            and (not reason.suffixes or cell.suffix in reason.suffixes)
            and (not reason.assets or cell.asset in reason.assets)
        ):
            return reason
    return None


def is_right(cell: Cell) -> bool:
    """Whether a cell is as good as wanted, or as its reason allows."""
    if not missed(cell):
        return True
    reason = reason_for(cell)
    if reason is None or cell.fault or cell.psnr is None or cell.outline is None:
        return False
    return cell.psnr >= reason.psnr and cell.outline >= reason.outline
