"""A drawing of the folders and what each imports: python -m tests.import_drawing writes docs/imports.svg."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape

from tests.import_table import COMMANDS, MAY_IMPORT, PACKAGES, ROOT

DRAWING = ROOT / "docs" / "imports.svg"
BOXES: dict[str, tuple[float, str]] = {
    "evaluate": (1.0, "scores many runs"),
    "benchmarks": (2.42, "measures time and memory"),
    "evaluation": (1.0, "suites, scorers and tables"),
    "train": (1.0, "the loop"),
    "view": (2.0, "shows an asset"),
    "export": (3.0, "writes other formats"),
    "toybox.lab": (0.0, "trains and judges toybox"),
    "training": (1.0, "state, step and files of a run"),
    "viewer": (2.0, "the browser's pages"),
    "exporting": (3.0, "splat files, textured meshes"),
    "guidance.prior": (0.5, "the diffusion models"),
    "gaussian_renderer": (2.0, "views of Gaussians"),
    "guidance": (0.5, "the methods, one file each"),
    "scene": (2.0, "Gaussians, cameras, starts"),
    "diff_gaussian_rasterization": (3.0, "the rasterizer"),
    "config": (0.5, "YAML and flags to Config"),
    "toybox": (1.44, "toys, their prior, their judge"),
    "point_e": (2.38, "points from a prompt"),
    "simple_knn": (3.32, "nearest neighbours"),
    "utils": (0.5, "seeds, devices, files, maths"),
}
"""Row of the table -> its column in the drawing, and what it holds. Its height follows from what it imports."""
COLUMN, ROW, WIDTH, HEIGHT, PORT, HEAD = 224, 96, 196, 52, 18, 8
"""Distances and sizes, in pixels: of boxes, of an arrow's ends on a box's edge, and the length of its head."""
COLORS = {
    "command": ("#ddf4ff", "#0969da"),
    "folder": ("#f6f8fa", "#6e7781"),
    "package": ("#dafbe1", "#1a7f37"),
}


@cache
def reached(row: str) -> frozenset[str]:
    """Rows that a row imports, itself or through others."""
    return frozenset(MAY_IMPORT[row]).union(*map(reached, MAY_IMPORT[row]))


def arrows() -> list[tuple[str, str]]:
    """The imports that do not follow from others."""
    through = {row: frozenset[str]().union(*map(reached, MAY_IMPORT[row])) for row in BOXES}
    return [(row, to) for row in BOXES for to in BOXES if to in MAY_IMPORT[row] - through[row]]


@cache
def layer(row: str) -> int:
    """Layer of a row: one more than the highest of its imports. A package that imports none is right below the lowest of its users."""
    if row in PACKAGES:
        return min(layer(user) for user in MAY_IMPORT if row in MAY_IMPORT[user]) - 1
    return 1 + max((layer(to) for to in MAY_IMPORT[row] if to not in PACKAGES), default=-1)


def middle(row: str) -> tuple[float, float]:
    """The middle of a box, in pixels."""
    return (BOXES[row][0] + 0.5) * COLUMN + 12, (max(map(layer, BOXES)) - layer(row)) * ROW + 46


def box(row: str) -> str:
    x, y = middle(row)
    kind = "command" if row in COMMANDS else "package" if row.split(".")[0] in PACKAGES else "folder"
    fill, line = COLORS[kind]
    name = f"{row}.py" if kind == "command" else row if row in PACKAGES else row.replace(".", "/") + "/"
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{fill}" '
        f'stroke="{line}"/>\n<text x="{x:g}" y="{y - 4:g}" class="name">{name}</text>\n'
        f'<text x="{x:g}" y="{y + 14:g}">{escape(BOXES[row][1])}</text>'
    )


def port(at: str, others: list[str], other: str) -> float:
    """Place on its box's edge an arrow begins or ends: in the middle if it is straight, else on the side that it leads to."""
    x, other_x = middle(at)[0], middle(other)[0]
    nearer = [each for each in others if x < middle(each)[0] <= other_x or other_x <= middle(each)[0] < x]
    return x + PORT * len(nearer) * (1 if other_x > x else -1)


def curves() -> Iterator[str]:
    """Each arrow from the lower edge of one box to the upper edge of another, past the boxes between them."""
    every = arrows()
    for row, to in every:
        x = port(row, [target for source, target in every if source == row], to)
        to_x = port(to, [source for source, target in every if target == to], row)
        y, to_y = middle(row)[1] + HEIGHT / 2, middle(to)[1] - HEIGHT / 2 - HEAD
        between = [middle(each)[0] for each in BOXES if layer(to) < layer(each) < layer(row)]
        lane = max((to_x, x), key=lambda at: min((abs(at - other) for other in between), default=0))
        # It goes sideways in one gap only, the first or the last one, and straight down in the others.
        gap = ROW - HEIGHT - HEAD
        first, last = (y, y + gap) if lane == to_x else (to_y - gap, to_y)
        bend = 0.6 * gap
        yield (
            f'<path d="M{x:g} {y:g}V{first:g}C{x:g} {first + bend:g} {to_x:g} {last - bend:g} {to_x:g} {last:g}V{to_y:g}" '
            'marker-end="url(#head)"/>'
        )


def drawing() -> str:
    width = max(middle(row)[0] for row in BOXES) + WIDTH / 2 + 24
    height = max(middle(row)[1] for row in BOXES) + HEIGHT / 2 + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
        "<style>text{font:13px Helvetica,Arial,sans-serif;text-anchor:middle;fill:#1f2328}.name{font-weight:bold;font-size:14px}</style>",
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="4" markerWidth="{HEAD}" markerHeight="{HEAD}" '
        'markerUnits="userSpaceOnUse"><path d="M0 0H8L4 8z" fill="#57606a" stroke="none"/></marker></defs>',
        f'<rect x="1" y="1" width="{width - 2:g}" height="{height - 2:g}" rx="10" fill="#ffffff" stroke="#d0d7de"/>',
        '<g fill="none" stroke="#57606a" stroke-width="1.3">',
        *curves(),
        "</g>",
        *map(box, BOXES),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
