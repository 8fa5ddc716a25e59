"""Time the rasterizer, forward and backward, beside every other one that this machine has.

python benchmarks/rasterizer.py [--size 512 --count 100000 --views 4] [--threads 2] [--json] python
benchmarks/rasterizer.py --device cuda [--inria FOLDER ...]

On the CPU: our builds for every instruction set, our twin in torch, and gsplat's implementation in torch
(`pip install gsplat==1.5.3 nerfacc`; benchmarks/rasterizers/gsplat_cpu.py lists what it lacks there). On
CUDA: ours, also replayed from a CUDA graph; our twin; gsplat; Inria's, if a folder with its compiled package
is on Python's path or given: `pip install --target FOLDER --no-deps --no-build-isolation` of its checkout
makes one, for it cannot be installed beside ours, whose name it shares.

The scenes are described in benchmarks/rasterizers/scene.py. Every line is measured in a process of its own,
or with --one-process all in one, which starts faster and lasts as long as no peer crashes. It has: medians in
milliseconds of forward, backward and both, and both as a multiple of ours in the scene's first line; on CUDA,
of the host until it had launched both; the peak of memory above the inputs; and how many of rgb, depth and
alpha there were with gradients. To show that all lines did the same, it has rgb's PSNR and the largest
relative difference of a gradient, against our portable CPU build.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import product

import torch

from hardware import hardware
from rasterizers import peers
from rasterizers.measure import Case, Job, Row, measure, measure_here

COLUMNS = {
    "views": 5,
    "size": 4,
    "Gaussians": 9,
    "rasterizer": 28,
    "version": 7,
    "forward": 9,
    "backward": 9,
    "both": 9,
    "x ours": 7,
    "host": 7,
    "MiB": 7,
    "images": 6,
    "PSNR": 5,
    "gradients": 9,
}
"""Columns of the table and their widths."""


def cells(row: Row, ours: float | None) -> tuple[str, ...]:
    """Cells of a line of the table; ours: the milliseconds that "x ours" is relative to."""
    where = (str(row.views), str(row.size), str(row.count), row.name, row.version)
    if row.total is None:
        return (*where, f"not run: {row.why}")
    assert row.psnr is not None

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return (
        *where,
        number(row.forward, 2),
        number(row.backward, 2),
        number(row.total, 2),
        "" if ours is None else number(row.total / ours, 2),
        number(row.host, 2),
        number(row.memory, 0),
        str(row.images),
        number(row.psnr, 0),
        f"{row.gradients:.0e}",
    )


def line(values: Iterable[str]) -> str:
    """A line of a Markdown table; a short one leaves the last columns empty."""
    padded = [
        f"{value:<{width}}" if name in ("rasterizer", "version") else f"{value:>{width}}"
        for value, (name, width) in zip(values, COLUMNS.items())
    ]
    return "| " + " | ".join(padded) + " |" * (1 + len(COLUMNS) - len(padded))


def measured(arguments: argparse.Namespace) -> Iterator[Row]:
    """Rows one by one; every scene's first one is ours."""
    first, *others = peers(arguments.device, arguments.inria)
    found = [first, *(peer for peer in others if any(word in peer.name for word in arguments.only))]
    for size, count, views in product(arguments.size, arguments.count, arguments.views):
        job = Job(
            views,
            size,
            count,
            arguments.footprint,
            arguments.device,
            arguments.threads,
            arguments.repeats,
        )
        case = Case.of(job) if arguments.one_process else None
        for peer in found:
            yield measure(peer, job) if case is None else measure_here(peer, job, case)


def show(rows: Iterator[Row]) -> None:
    """Print the table as it grows."""
    print(line(COLUMNS))
    print(line("-" * width for width in COLUMNS.values()))
    ours, scene = None, None
    for row in rows:
        if (row.views, row.size, row.count) != scene:
            ours, scene = row.total, (row.views, row.size, row.count)
        print(line(cells(row, ours)), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="image side in pixels")
    parser.add_argument(
        "--count",
        type=int,
        nargs="+",
        default=[20_000, 50_000, 100_000, 200_000, 1_000_000],
        help="Gaussians",
    )
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--footprint", type=float, default=32.0, help="mean pixels that a Gaussian covers")
    parser.add_argument("--repeats", type=int, default=30, help="at most; three once ten seconds have passed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--inria", nargs="+", default=[], metavar="FOLDER", help="that hold Inria's package")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="WORD",
        help="the first line, and those with a WORD in their names",
    )
    parser.add_argument("--one-process", action="store_true", help="start no process for each line")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    found = parser.parse_args()
    if found.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that torch can use, and there is none.")
    return found


def main() -> None:
    arguments = parse()
    where = hardware(arguments.device, arguments.threads)
    if arguments.json:
        rows = [asdict(row) for row in measured(arguments)]
        print(json.dumps({**where, "footprint": arguments.footprint, "rows": rows}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in where.items()) + "\n")
    show(measured(arguments))


if __name__ == "__main__":
    main()
