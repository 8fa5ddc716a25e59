"""Time the CPU rasterizer by one thread and by several, alone and beside other people's load, batched and view by view.

python benchmarks/threads.py [--load 0 2] [--threads 1 2] [--views 4 --size 512 --count 100000]
python benchmarks/threads.py --before FOLDER

--load N keeps N processes busy on the cores that this one may use. --before compares with the package of another commit in the
same run: `pip install --no-deps --target FOLDER` of its submodules/diff-gaussian-rasterization makes such a folder. All lines
of a load take turns, so that what else the machine does falls on all of them. Views are rendered by one call, or by the
single-view class one after the other before they go backward together, as loops with Inria's interface do.

Every line: medians in milliseconds of forward, backward and both; the processor's time for both; both as a multiple of the same
with the first number of threads, and of the same before. The median of these two is over the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from types import ModuleType

import torch

import diff_gaussian_rasterization
from hardware import hardware
from rasterizers.inria import PACKAGE, load_as, view_by_view
from rasterizers.load import busy
from rasterizers.measure import step_cpu
from rasterizers.peer import Images, Render
from rasterizers.scene import Scene, make_scene

NOW, BEFORE = "now", "before"
BATCHED, VIEW_BY_VIEW = "one call", "view by view"


@dataclass(frozen=True)
class Case:
    """The load, the way, the threads and the build that a line is of."""

    load: int
    way: str
    threads: int
    build: str


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds, and ratios of `both`: to the first number of threads, and to the build before."""

    load: int
    way: str
    threads: int
    build: str
    forward: float
    backward: float
    both: float
    processor: float
    to_first: float
    to_before: float | None


Times = tuple[float, float, float, float]
"""Milliseconds of forward, backward, both, and of the processor."""


def batched(scene: Scene, module: ModuleType) -> Render:
    """The forward of all views by one call of a module."""

    def render() -> Images:
        out = module.rasterize(**scene.gaussians, **scene.cameras)
        return out.rgb, out.depth, out.alpha

    return render


def timed(scene: Scene, render: Render) -> Times:
    """Times of one forward and backward."""
    start = time.process_time()
    reading, _ = step_cpu(scene, render)
    processor = 1e3 * (time.process_time() - start)
    forward, backward, both = (each for each in reading() if each is not None)
    return forward, backward, both, processor


def rounds(arguments: argparse.Namespace, load: int) -> dict[Case, list[Times]]:
    """The times of every case beside this load, which take turns."""
    scene = make_scene(arguments.count, arguments.views, arguments.size, arguments.footprint, "cpu")
    builds = {NOW: diff_gaussian_rasterization}
    if arguments.before:
        builds[BEFORE] = load_as("before_" + PACKAGE, arguments.before / PACKAGE)
    ways: dict[str, Callable[[Scene, ModuleType], Render]] = {BATCHED: batched, VIEW_BY_VIEW: view_by_view}
    renders = {
        Case(load, way, threads, build): make(scene, module)
        for (way, make), threads, (build, module) in product(ways.items(), arguments.threads, builds.items())
    }
    found: dict[Case, list[Times]] = {case: [] for case in renders}
    with busy(load):
        for turn in range(1 + arguments.repeats):  # the first one warms up
            for case, render in renders.items():
                torch.set_num_threads(case.threads)
                timed(scene, render)  # finds its own caches warm, as in a loop
                times = timed(scene, render)
                if turn:
                    found[case].append(times)
    return found


def row(case: Case, found: dict[Case, list[Times]], first: int) -> Row:
    """The line of a case."""

    def ratio(other: Case) -> float:
        return statistics.median(mine[2] / its[2] for mine, its in zip(found[case], found[other]))

    before = Case(case.load, case.way, case.threads, BEFORE)
    return Row(
        **asdict(case),
        **dict(zip(("forward", "backward", "both", "processor"), map(statistics.median, zip(*found[case])))),
        to_first=ratio(Case(case.load, case.way, first, case.build)),
        to_before=ratio(before) if before in found else None,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--load", type=int, nargs="+", default=[0, 2], help="busy processes beside")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="that holds another commit's package")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--count", type=int, default=100_000, help="Gaussians")
    parser.add_argument("--footprint", type=float, default=32.0, help="mean pixels that a Gaussian covers")
    parser.add_argument("--repeats", type=int, default=9, help="rounds that count")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    found = [
        row(case, times, arguments.threads[0])
        for load in arguments.load
        for times in [rounds(arguments, load)]
        for case in times
    ]
    where = hardware("cpu", max(arguments.threads))
    if arguments.json:
        print(json.dumps({**where, "rows": [asdict(each) for each in found]}, indent=2))
        return
    print(", ".join(f"{key} {value}" for key, value in where.items()) + "\n")
    print("| load | views | threads | build | forward | backward | both | processor | × first | × before |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for each in found:
        numbers = [each.forward, each.backward, each.both, each.processor]
        ratios = [each.to_first, *([] if each.to_before is None else [each.to_before])]
        cells = [str(each.load), each.way, str(each.threads), each.build, *(f"{n:.1f}" for n in numbers)]
        cells += [f"{ratio:.2f}" for ratio in ratios] + [""] * (2 - len(ratios))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
