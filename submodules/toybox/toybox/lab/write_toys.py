"""`python -m toybox.lab.write_toys FOLDER`: the true toys as assets, named after their prompts.

`a blue car.ply` shows that car; `recolored/a blue car.ply` the same kind in another colour, to be made blue. Suites of runs
start from these, or are guided by them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from scene.axes import OURS
from scene.ply import write_gaussians
from toybox.captions import HELD_OUT, caption
from toybox.splats import Splats, canonical
from toybox.world import COLORS, Name


def recolored(name: Name) -> Name:
    """Return the toy in the colour that is half of the list away."""
    colors = [*COLORS]
    other = colors[(colors.index(name.color) + len(colors) // 2) % len(colors)]
    return name._replace(color=other)


def write_toy(toy: Splats, path: Path) -> None:
    """Write a toy as Gaussians in a `.ply` file."""
    raw = {
        "xyz": toy.means,
        "f_dc": toy.shs,
        "f_rest": toy.shs[:, :0],
        "opacity": toy.opacities.logit(),
        "scaling": toy.scales.log(),
        "rotation": toy.rotations,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gaussians(path, raw, OURS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m toybox.lab.write_toys", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name in tqdm([name for name in HELD_OUT if name.on is None], unit="toy"):
        file = f"{caption(name)}.ply"
        write_toy(canonical(name), folder / file)
        write_toy(canonical(recolored(name)), folder / "recolored" / file)


if __name__ == "__main__":
    main()
