"""The page of programs: a table of all cells, and a sheet of what each program shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from tests.programs.cells import Cell, missed
from tests.programs.museum import ASSETS, BLENDER, PACKAGES, Museum, version
from tests.programs.reasons import REASONS, reasons_for
from utils.files import write_text
from utils.media import Row, read_image, rows_sheet, write_jpeg

BEGIN, END = "<!-- made by python -m tests.programs -->", "<!-- end of what is made -->"
TILE = 128


def write_page(cells: list[Cell], museum: Museum, modules: Path | None, docs: Path) -> None:
    """Put the table between the marks of programs.md, and the pictures to programs.jpg."""
    page = docs / "programs.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(rows(cells, modules))
    write_text(page, f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    write_jpeg(docs / "programs.jpg", rows_sheet(list(strips(cells, museum, modules))), quality=70)


def strips(cells: list[Cell], museum: Museum, modules: Path | None) -> Iterator[Row]:
    """Rows of the sheet: for each program and asset our own render, and the first view of each file with its PSNR."""
    for program in (*PACKAGES, BLENDER):
        for name, own in museum.own.items():
            shown = [cell for cell in cells if (cell.program, cell.asset) == (program, name) and cell.psnr]
            images = [torch.from_numpy(own[0]).permute(2, 0, 1).float()]
            images += [read_image(museum.folder / f"{program}-{name}{cell.suffix}.0.png") for cell in shown]
            small = [torch.nn.functional.adaptive_avg_pool2d(image, TILE) for image in images]
            labels = ["our own", *(f"{cell.suffix} {cell.psnr:.1f}" for cell in shown)]
            if shown:
                yield Row(f"{program} {version_of(program, modules)}, {name}", torch.stack(small), labels)


def rows(cells: list[Cell], modules: Path | None) -> Iterator[str]:
    """Lines of the table, one per program and format, and what its letters are for."""
    yield "| program | file | plain: dB, outline | stretched: dB, outline |"
    yield "|---|---|---|---|"
    used = [reason for cell in cells if missed(cell) for reason in reasons_for(cell)]
    for program in (*PACKAGES, BLENDER):
        found = [cell for cell in cells if cell.program == program]
        for suffix in dict.fromkeys(cell.suffix for cell in found):
            pair = {cell.asset: entry(cell) for cell in found if cell.suffix == suffix}
            entries = " | ".join(pair.get(name, "") for name in ASSETS)
            yield f"| {program} {version_of(program, modules)} | `{suffix}` | {entries} |"
    yield ""
    yield from (f"- **{reason.mark}**: {reason.why}" for reason in REASONS if reason in used)


def entry(cell: Cell) -> str:
    """Entry of the table for a cell; where it misses, letters and PSNR with what they are for taken into account."""
    if cell.fault:
        return f"stops: {cell.fault[:60]}"
    if cell.psnr is None or cell.outline is None:
        return "points in place"
    measured = f"{cell.psnr:.1f}, {cell.outline:.3f}"
    if not missed(cell):
        return measured
    if cell.known_psnr is None:
        return f"{measured} (not explained)"
    return f"{measured} ({''.join(reason.mark for reason in reasons_for(cell))}: {cell.known_psnr:.1f})"


def version_of(program: str, modules: Path | None) -> str:
    """Version of a program, nothing where it is not installed."""
    if program != BLENDER:
        return "" if modules is None else version(program, modules)
    try:
        from importlib.metadata import version as of_package

        return of_package("bpy")
    except ImportError:
        return ""
