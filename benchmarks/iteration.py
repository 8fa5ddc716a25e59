"""Time the training iteration in its parts, for every guidance.

    python benchmarks/iteration.py [--model sd21] [--guidance sctd sds] [--prompting CFG] [--views 1 4 8] [--json FILE]
    python benchmarks/iteration.py --model toybox --device cpu --blocks 3 --block 2

sd21 is Stable Diffusion 2.1-base's true architecture with random weights, which its speed does not depend on, in half
precision where the device is an accelerator; toybox is the miniature that comes with the project. The iterations are
train.py's own, watched from outside, at steps spread evenly over the run, with density control's statistics but without its
changes, so that all blocks time the same scene. On an accelerator, times are those of events on its stream, read at the end.

Every line: milliseconds per iteration of the median block, and its parts; U-Net calls per iteration and latents per call;
TFLOP/s achieved in the U-Net and in the encoder, there and back, in brackets as a share of what a large matrix product
achieves here in the same precision; the most memory held, with the weights; host waits per iteration; hours of the whole
run; and the time as a multiple of the first way's. benchmarks/iterations/measure.py describes the ways.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import config as configuration
import guidance
from config import Config
from guidance import METHODS
from guidance.prior import LatentPrior
from hardware import hardware
from iterations.measure import WAYS, Job, Row, measure, ways_of
from iterations.sd21 import RandomPrior
from iterations.watch import PARTS
from iterations.work import Work, matrix_peak, work_of
from utils.device import resolve_device

PRESETS = Path(__file__).parents[1] / "config"
PROMPTINGS = {"CFG": "false", "Perp-Neg": "true"}
MODELS = {"sd21": ("bagel.yaml", 512, 100_000), "toybox": ("quickstart.yaml", 128, 6_000)}
"""Preset that is timed, its images' side in pixels, and its Gaussians."""


def config_of(arguments: argparse.Namespace, method: str, prompting: str, views: int) -> Config:
    """Make the settings that train.py would have, with a start that needs no download and Gaussians that stay as many."""
    preset, size, count = MODELS[arguments.model]
    size, count = arguments.size or size, arguments.count or count
    flags = {
        "opt": PRESETS / preset,
        "guidance_type": method,
        "perpneg": PROMPTINGS[prompting],
        "C_batch_size": views,
        "device": arguments.device,
        "init_shape": "sphere",
        "init_num_pts": count,
        "image_w": size,
        "image_h": size,
        "iterations": arguments.iterations,
        "densify_until_iter": 0,
        "relocate_interval": 0,
        "fast": False,
    }
    return configuration.load([part for name, value in flags.items() for part in (f"--{name}", str(value))])


def prior_of(arguments: argparse.Namespace, device: torch.device) -> LatentPrior:
    """The prior in the precision that train.py would take."""
    if arguments.model == "sd21":
        return RandomPrior(device, torch.float32 if device.type == "cpu" else torch.float16)
    return guidance.prior.load_prior(config_of(arguments, "sctd", "CFG", 1), device)


def measured(arguments: argparse.Namespace, prior: LatentPrior, work: Work) -> Iterator[Row]:
    """Rows one by one; every configuration's first one is ours."""
    job = Job(arguments.blocks, arguments.block)
    for method, prompting, views in product(arguments.guidance, arguments.prompting, arguments.views):
        config = config_of(arguments, method, prompting, views)
        for way in ways_of(method):
            yield measure(config, prior, way, job, work)


COLUMNS = (
    *("guidance", "prompting", "views", "way", "at once", "ms", *PARTS, "U-Net calls", "U-Net TFLOP/s"),
    *("encode TFLOP/s", "its way back TFLOP/s", "GB", "waits", "hours", "x ours"),
)


def cells(row: Row, peak: float, iterations: int, ours: float | None) -> list[str]:
    """Cells of a line of the table.

    peak: TFLOP/s of a matrix product; ours: the milliseconds that "x ours" is relative to.
    """
    where = [row.guidance, row.prompting, str(row.views), row.way]
    if row.ms is None:
        return [*where, f"not run: {row.why}", *[""] * (len(COLUMNS) - len(where) - 1)]
    speeds = (row.unet_tflops, row.encode_tflops, row.encode_backward_tflops)
    return [
        *where,
        row.at_once,
        f"{row.ms:.1f}",
        *(f"{row.parts[name]:.1f}" for name in PARTS),
        f"{row.calls:.1f} of {row.latents / row.calls:.1f}",
        *(f"{speed:.3g} ({speed / peak:.0%})" for speed in speeds),
        "" if row.memory is None else f"{row.memory:.2f}",
        "" if row.waits is None else str(row.waits),
        f"{row.hours(iterations):.2f}",
        "" if ours is None else f"{row.ms / ours:.2f}",
    ]


def line(values: Iterable[str]) -> str:
    """Make a line of a Markdown table."""
    return "| " + " | ".join(values) + " |"


def show(rows: Iterable[Row], peak: float, iterations: int) -> list[Row]:
    """Print the table as it grows. Returns its rows."""
    print(line(COLUMNS))
    print(line("---" for _ in COLUMNS))
    shown: list[Row] = []
    ours = None
    for row in rows:
        ours = row.ms if row.way == WAYS[0] else ours
        print(line(cells(row, peak, iterations, ours)), flush=True)
        shown.append(row)
    return shown


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="sd21")
    parser.add_argument("--device", default="auto", help="as train.py's")
    parser.add_argument("--guidance", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--prompting", nargs="+", choices=list(PROMPTINGS), default=list(PROMPTINGS))
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8], help="per iteration: C_batch_size")
    parser.add_argument("--size", type=int, help="image side in pixels; by default the model's")
    parser.add_argument("--count", type=int, help="Gaussians; by default the model's")
    parser.add_argument("--iterations", type=int, default=5000, help="of the run that is looked into")
    parser.add_argument("--blocks", type=int, default=5, help="an odd number")
    parser.add_argument("--block", type=int, default=8, help="iterations in a block")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to as well")
    found = parser.parse_args(argv)
    if found.blocks < 1 or found.blocks % 2 == 0:
        parser.error(f"--blocks is {found.blocks}, but must be odd, to have a median block.")
    if found.block < 1 or found.blocks * found.block > found.iterations:
        parser.error(f"--block is {found.block}, but must be at least 1, and all blocks fit into the run.")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    try:
        device = resolve_device(arguments.device)
    except ValueError as error:
        sys.exit(f"iteration.py: {error}")
    prior = prior_of(arguments, device)
    work = work_of(prior)
    dtype = prior.network.dtype
    peak = matrix_peak(device, dtype)
    where = hardware(device.type, torch.get_num_threads())
    where |= {"model": arguments.model, "precision": str(dtype).removeprefix("torch.")}
    where |= {"matrix product": f"{peak:.3g} TFLOP/s"}
    print(", ".join(f"{key} {value}" for key, value in where.items()) + "\n")
    rows = show(measured(arguments, prior, work), peak, arguments.iterations)
    if arguments.json:
        found = {**where, "peak": peak, "work": asdict(work), "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
