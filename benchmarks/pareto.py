"""Draw what the methods of an evaluation take and give, with the line of those that no other beats in both.

python benchmarks/pareto.py outputs/evaluation/toybox-fast/results.json [-o docs/fast.svg] [--x core_seconds --y psnr]

Every method is a dot: the means over its runs. Of two that take the same the higher one is better; a column that is better when low
is drawn upside down.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 400, 52, 40
LINE = 13
"""Height of a label, in pixels of the picture, as all lengths here."""


@dataclass(frozen=True)
class Dot:
    """A method, what it takes and what it gives."""

    name: str
    cost: float
    worth: float


def dots(results: dict[str, Any], cost: str, worth: str) -> list[Dot]:
    """The methods that have both columns, the cheapest first."""
    means = {
        row["method"]: {key: one["mean"] for key, one in row["figures"].items()} for row in results["rows"]
    }
    found = [Dot(name, each[cost], each[worth]) for name, each in means.items() if {cost, worth} <= set(each)]
    return sorted(found, key=lambda dot: dot.cost)


def frontier(found: Sequence[Dot], sign: int) -> list[Dot]:
    """The dots that give more than every cheaper one; sign: -1 if less is more."""
    best: list[Dot] = []
    for dot in found:
        if not best or sign * dot.worth > sign * best[-1].worth:
            best.append(dot)
    return best


def svg(found: Sequence[Dot], sign: int, x_title: str, y_title: str) -> str:
    """Picture of the dots: what they take on a logarithmic axis, what they give upwards."""
    costs, worths = [math.log(dot.cost) for dot in found], [sign * dot.worth for dot in found]
    wide, high = max(costs) - min(costs) or 1.0, max(worths) - min(worths) or 1.0
    # Names stand to the right of their dots.
    places = [
        (
            LEFT + 20 + (WIDTH - LEFT - 210) * (cost - min(costs)) / wide,
            HEIGHT - BOTTOM - 20 - (HEIGHT - BOTTOM - 50) * (worth - min(worths)) / high,
        )
        for cost, worth in zip(costs, worths)
    ]
    best = frontier(found, sign)
    line = " ".join(f"{x:.1f},{y:.1f}" for dot, (x, y) in zip(found, places) if dot in best)
    lines = [f'<polyline points="{line}" fill="none" stroke="#999" stroke-dasharray="4 3"/>']
    taken: list[tuple[float, float]] = []
    for dot, (x, y) in sorted(zip(found, places), key=lambda each: each[1][1]):
        lower = y + 4
        while any(abs(lower - other) < LINE and abs(x - beside) < 180 for beside, other in taken):
            lower += 1
        taken.append((x, lower))
        color = "#c33" if dot in best else "#777"
        lines += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>',
            f'<text x="{x + 8:.1f}" y="{lower:.1f}">{escape(dot.name)}: {dot.cost:,.0f}, {dot.worth:.3g}</text>',
        ]
    base = HEIGHT - BOTTOM
    lines += [
        f'<path d="M{LEFT} 12V{base}H{WIDTH - 12}" fill="none" stroke="#999"/>',
        f'<text x="{WIDTH - 12}" y="{base + 24}" text-anchor="end">{escape(x_title)}, logarithmic →</text>',
        f'<text x="{LEFT - 8}" y="20" text-anchor="end">{escape(y_title)}</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of evaluate.py")
    parser.add_argument("-o", "--out", type=Path, default=Path("pareto.svg"))
    parser.add_argument("--x", default="core_seconds", help="column of what a method takes")
    parser.add_argument("--y", default="psnr", help="column of what it gives")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    columns = {column["key"]: column for column in results["columns"]}
    for key in (arguments.x, arguments.y):
        if key not in columns:
            parser.error(f"{key!r} is no column of {arguments.results}; choose one of {', '.join(columns)}")
    headings = [columns[key]["heading"] for key in (arguments.x, arguments.y)]
    sign = columns[arguments.y]["better"] or 1
    arguments.out.write_text(svg(dots(results, arguments.x, arguments.y), sign, *headings))


if __name__ == "__main__":
    main()
