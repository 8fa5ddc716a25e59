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


MESHES = (".glb", ".obj", ".usdz", ".usdc", ".mesh.ply")
REASONS = (
    Reason(
        "T",
        "three.js ends each Gaussian at two standard deviations, and makes small ones paler where it blurs them. Spark "
        "draws the same files in three.js without either. With both taken out of its code three.js is at 49 dB.",
        ("three",),
        (".spz", ".ply", ".splat", ".splat.glb"),
        (),
        psnr=24.0,
        outline=0.88,
    ),
    Reason(
        "P",
        "PlayCanvas, and with it SuperSplat, lowers each Gaussian by 1.8 %, so that it ends at 2.8 standard deviations. Soft "
        "edges become thinner. Nothing in a file changes that. With that taken out of its code it is at 38.9 dB.",
        ("playcanvas", "supersplat"),
        (".sog", ".ply", ".compressed.ply", ".splat.glb"),
        (),
        psnr=29.0,
        outline=0.94,
    ),
    Reason(
        "K",
        "This viewer draws harmonics to degree 2, and `.splat` holds none. Write `.ply` of an asset trained with `--sh_degree 2`.",
        ("mkkellogg",),
        (".ply", ".splat"),
        ("stretched",),
        psnr=25.0,
        outline=0.94,
    ),
    Reason(
        "V",
        "`.splat` has no room for colours that change with the view. All other formats do.",
        ("three", "spark", "babylon"),
        (".splat",),
        ("stretched",),
        psnr=25.0,
        outline=0.94,
    ),
    Reason(
        "M",
        "A mesh has one colour at each place and no gaps, so it is a mean of Gaussians that are seen through and change their "
        "colour with the view. Write Gaussians where a program takes them.",
        (),
        MESHES,
        ("stretched",),
        psnr=18.0,
        outline=0.85,
    ),
    Reason("S", "`.stl` has no colours. `.glb` has.", (), (".stl",), (), psnr=0.0, outline=0.85),
)


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
            (not reason.programs or cell.program in reason.programs)
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
