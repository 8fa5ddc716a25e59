"""Open exports in other programs and write what they show to docs/programs.md and docs/programs.jpg.

python -m tests.programs                  all programs
python -m tests.programs three blender    these; others keep the rows that they had here before
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from tests.programs.browser import CACHE, Picture, installed
from tests.programs.cells import Cell
from tests.programs.museum import (
    BLENDER,
    PACKAGES,
    Museum,
    as_json,
    camera_of_recipes,
    own_pictures,
    published,
    recipes,
)
from tests.programs.page import write_page
from utils.media import contact_sheet, write_jpeg

RESULTS = CACHE / "results"


def write_row(path: str, shown: dict[str, Picture]) -> None:
    """Write pictures side by side under their labels."""
    images = [torch.from_numpy(picture).permute(2, 0, 1).float() for picture in shown.values()]
    write_jpeg(path, contact_sheet(images, len(images), list(shown)))


def main(programs: list[str]) -> int:
    RESULTS.mkdir(parents=True, exist_ok=True)
    museum = Museum(RESULTS)
    modules = installed()
    done = []
    for program in programs:
        if program == BLENDER and importlib.util.find_spec("bpy") is None:
            print("blender is left out: pip install bpy, for the Python that it is made for.")
            continue
        if program != BLENDER and modules is None:
            print(f"{program} is left out: it needs npm.")
            continue
        done.append(program)
        cells: list[Cell] = []
        for cell in museum.browse(program, modules) if modules and program != BLENDER else museum.blend():
            print(cell, flush=True)
            cells.append(cell)
            (RESULTS / f"{program}.json").write_text(as_json(cells))
    known = [RESULTS / f"{program}.json" for program in (*PACKAGES, BLENDER)]
    found = [Cell(**each) for path in known if path.is_file() for each in json.loads(path.read_text())]
    if modules is not None:
        own = own_pictures(museum.assets["plain"], camera_of_recipes())[0]
        spark, three = recipes()
        if "spark" in done:
            shown = {"the page": published(spark, RESULTS, modules), "our own render": own}
            write_row("docs/recipe-page.jpg", shown)
        if "three" in done:
            without = "".join(line for line in three.splitlines(True) if "outputColorSpace" not in line)
            pages = {"the page": three, "without that line": without}
            shown = {label: published(page, RESULTS, modules) for label, page in pages.items()}
            write_row("docs/recipe-three.jpg", shown | {"our own render": own})
    if BLENDER in done:
        write_row("docs/recipe-blender.jpg", museum.blender_recipe())
    write_page(found, museum, modules, Path("docs"))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:] or [*PACKAGES, BLENDER]))
