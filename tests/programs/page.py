"""The page of programs: a table of all cells, and a sheet of what each program shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from tests.programs.museum import ASSETS, BLENDER, PACKAGES, Cell, Museum, version
from tests.programs.reasons import REASONS, missed, reason_for
from utils.files import write_text
from utils.media import contact_sheet, read_image, write_jpeg

BEGIN, END = "<!-- made by python -m tests.programs -->", "<!-- end of what is made -->"
TILE = 128
COLUMNS = 9


def write_page(cells: list[Cell], museum: Museum, modules: Path | None, docs: Path) -> None:
    """Put the table between the marks of programs.md, and the pictures to programs.jpg."""
    page = docs / "programs.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(rows(cells, modules))
    write_text(page, f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    images, labels = [], []
    for name, own in museum.own.items():
        shown = [cell for cell in cells if cell.asset == name and cell.psnr is not None]
        images += [torch.from_numpy(own[0]).permute(2, 0, 1).float()]
        images += [read_image(museum.folder / f"{cell.program}-{name}{cell.suffix}.png") for cell in shown]
        labels += [f"{name}, our own", *(f"{cell.program} {cell.suffix}" for cell in shown)]
    small = [torch.nn.functional.adaptive_avg_pool2d(image, TILE) for image in images]
    write_jpeg(docs / "programs.jpg", contact_sheet(small, COLUMNS, labels), quality=80)


def rows(cells: list[Cell], modules: Path | None) -> Iterator[str]:
    """Lines of the table: one per program and format, with PSNR in dB and outline of each asset."""
    yield "| program | file | plain: dB, outline | stretched: dB, outline | why less than wanted |"
    yield "|---|---|---|---|---|"
    used = [reason_for(cell) for cell in cells if missed(cell)]
    for program in (*PACKAGES, BLENDER):
        found = [cell for cell in cells if cell.program == program]
        title = f"{program} {version_of(program, modules)}"
        for suffix in dict.fromkeys(cell.suffix for cell in found):
            pair = [cell for cell in found if cell.suffix == suffix]
            reasons = dict.fromkeys(reason_for(cell) for cell in pair if missed(cell))
            entries = [next((entry(cell) for cell in pair if cell.asset == name), "") for name in ASSETS]
            why = " ".join(reason.mark for reason in reasons if reason is not None)
            yield f"| {title} | `{suffix}` | {' | '.join(entries)} | {why} |"
    yield ""
    yield from (f"- **{reason.mark}**: {reason.why}" for reason in REASONS if reason in used)


def entry(cell: Cell) -> str:
    if cell.fault:
        return f"stops: {cell.fault[:60]}"
    if cell.psnr is None or cell.outline is None:
        return "points in place"
    return f"{cell.psnr:.1f}, {cell.outline:.3f}"


def version_of(program: str, modules: Path | None) -> str:
    """Version of a program, nothing where it is not installed."""
    if program != BLENDER:
        return "" if modules is None else version(program, modules)
    try:
        from importlib.metadata import version as of_package

        return of_package("bpy")
    except ImportError:
        return ""
