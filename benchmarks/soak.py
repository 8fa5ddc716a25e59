"""Check that long runs stay as they begin: memory and speed over many iterations of the quickstart.

  python benchmarks/soak.py --iterations 20000 -o docs/soak.svg

Prints the resident memory in each tenth of the run and its growth from the third one to the last, and draws both curves.
Before, it is not settled: the first turntable videos are made after a fifth of the run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
from train import train
from utils.curves import Curve, svg
from utils.device import machine, resolve_device
from utils.files import write_text

EVERY = 20
"""Iterations between two looks."""


def resident() -> float:
    """Memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("-o", "--out", type=Path, help="the picture, SVG")
    parser.add_argument("flags", nargs="*", help="of train.py, after --")
    arguments = parser.parse_args()
    if arguments.iterations < 20 * EVERY:
        parser.error(
            f"--iterations is {arguments.iterations}, but must be at least {20 * EVERY} to have tenths"
        )
    looks: list[tuple[int, float, float]] = []

    def look(step: int) -> None:
        if step % EVERY == 0:
            looks.append((step, resident(), time.perf_counter()))

    flags = [
        "--fast",
        "false",
        "--iterations",
        str(arguments.iterations),
        "--workspace",
        "soak",
        *arguments.flags,
    ]
    with tempfile.TemporaryDirectory() as outputs:
        train(configuration.load(flags), Path(outputs), look)
    steps, memory, times = (np.array(column, dtype=float) for column in zip(*looks))
    speed = EVERY / np.diff(times)
    tenths = [np.median(part) for part in np.array_split(memory, 10)]
    print(f"{machine(resolve_device(None))}, {arguments.iterations} iterations of the quickstart")
    print(f"resident memory in each tenth: {', '.join(f'{each:.0f}' for each in tenths)} MB")
    print(f"growth from the third tenth to the last: {tenths[-1] / tenths[2] - 1:+.2%}")
    fast = [np.median(part) for part in np.array_split(speed, 10)]
    print(f"speed: {fast[2]:.2f} it/s in the third tenth, {fast[-1]:.2f} it/s in the last")
    if arguments.out:
        curves = [
            Curve("resident memory, MB", steps, memory, logarithmic=False),
            Curve("iterations per second", steps[1:], speed, logarithmic=False),
        ]
        write_text(arguments.out, svg(curves))


if __name__ == "__main__":
    main()
