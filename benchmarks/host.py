"""Count what the host does in an iteration of every guidance: what it issues to a device, and how long that
takes.

    python benchmarks/host.py [--model sd21] [--guidance sctd sds] [--prompting CFG] [--views 4] [--json FILE]

The iterations are train.py's own, at steps spread evenly over the run, on a device without numbers (torch's meta tensors), so
that no accelerator is needed. Counted per iteration, in parts: launches, operations of torch that start a kernel on the
device, and the rasterizer's own kernels; fresh tensors there; copies between host and device; operations of torch on the host
alone, on tensors as small as the cameras; and the rasterizer's calls of CUDA's driver. The time is that of one thread of the
processor for the same iterations on the host, toybox's with so few Gaussians and pixels that there is little to compute: a
rough figure of the cost to the host of issuing all this. The networks are listed apart: an accelerator has them compiled.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import guidance
import training.step
from guidance import METHODS
from guidance.prior import LatentPrior
from hardware import hardware
from iteration import MODELS, PROMPTINGS, config_of, line
from iterations.host_parts import NETWORKS, OUTSIDE, watched
from iterations.launches import Counts, Launches
from iterations.measure import WAYS, Job, assembled
from iterations.null_device import NULL, move_to_null_device, null_device
from iterations.sd21 import RandomPrior
from training.state import Training
from utils.device import HOST

SMALL = {"model": "toybox", "size": 32, "count": 200}
"""Settings of what is timed: the same operations on tensors that take no time."""


def prior_of(arguments: argparse.Namespace) -> LatentPrior:
    if arguments.model == "toybox":
        return toybox(arguments)
    prior = RandomPrior(NULL, torch.float16)
    # Until the run is moved, it is one on the host.
    prior.device = HOST
    return prior


def toybox(arguments: argparse.Namespace) -> LatentPrior:
    return guidance.prior.load_prior(config_of(arguments, "sctd", "CFG", 1), HOST)


def counted(state: Training, steps: Sequence[int]) -> dict[str, Counts]:
    """Count by part what these iterations of a run come to on NULL, where it is moved."""
    move_to_null_device(state)
    launches = Launches(NULL)
    with null_device(launches.called), watched(state, launches), launches:
        iterate(state, steps)
    return {part: launches.counts[part] for part in (*OUTSIDE, *NETWORKS)}


def timed(state: Training, steps: Sequence[int]) -> dict[str, int]:
    """Nanoseconds of processor time of these iterations by part, of a run that is small enough not to have
    much to compute.
    """
    clock = Launches(NULL)
    with watched(state, clock):
        iterate(state, steps[:1])  # to warm up
        for counts in clock.counts.values():
            counts.ns = 0
        iterate(state, steps)
    return {part: clock.counts[part].ns for part in (*OUTSIDE, *NETWORKS)}


def iterate(state: Training, steps: Iterable[int]) -> None:
    for step in steps:
        training.step.training_step(state, step)
    state.noted.clear()


COLUMNS = ("part", "launches", "fresh tensors", "copies", "on the host", "driver calls", "µs")


def cells(name: str, parts: Sequence[Counts], iterations: int) -> list[str]:
    """A line of the table: sums per iteration."""
    totals = [
        sum(counts.launches.total() for counts in parts),
        *(
            sum(getattr(counts, name) for counts in parts)
            for name in ("allocations", "copies", "on_host", "calls")
        ),
        sum(counts.ns for counts in parts) / 1e3,
    ]
    return [name, *(f"{total / iterations:.0f}" for total in totals)]


def table(counts: dict[str, Counts], iterations: int) -> Iterator[list[str]]:
    for part in OUTSIDE:
        yield cells(part, [counts[part]], iterations)
    yield cells("**outside the networks**", [counts[part] for part in OUTSIDE], iterations)
    for part in NETWORKS:
        yield [*cells(part, [counts[part]], iterations)[:-1], ""]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="sd21")
    parser.add_argument("--guidance", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--prompting", nargs="+", choices=list(PROMPTINGS), default=["CFG"])
    parser.add_argument("--views", type=int, nargs="+", default=[4], help="per iteration: C_batch_size")
    parser.add_argument("--size", type=int, help="image side in pixels; by default the model's")
    parser.add_argument("--count", type=int, help="Gaussians; by default the model's")
    parser.add_argument("--iterations", type=int, default=5000, help="of the run that is looked into")
    parser.add_argument("--look", type=int, default=8, help="iterations to look at, spread over the run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the figures to as well")
    found = parser.parse_args(argv, argparse.Namespace(device=HOST.type))
    if not 1 <= found.look <= found.iterations:
        parser.error(f"--look is {found.look}, but must be between 1 and the run's iterations.")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    small = argparse.Namespace(**{**vars(arguments), **SMALL})
    prior, little = prior_of(arguments), toybox(small)
    where = hardware(HOST.type, 1) | {"model": arguments.model}
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    [steps] = Job(1, arguments.look).steps(arguments.iterations)
    rows = []
    for method, prompting, views in product(arguments.guidance, arguments.prompting, arguments.views):
        prior.device = HOST
        state = assembled(config_of(arguments, method, prompting, views), prior, WAYS[0])
        found = counted(state, steps)
        tiny = assembled(config_of(small, method, prompting, views), little, WAYS[0])
        for part, ns in timed(tiny, steps).items():
            found[part].ns = ns
        print(f"\n{method}, {prompting}, {views} views, per iteration:\n")
        print(line(COLUMNS))
        print(line("---" for _ in COLUMNS))
        for values in table(found, len(steps)):
            print(line(values), flush=True)
        parts = {part: vars(counts) for part, counts in found.items()}
        rows.append({"guidance": method, "prompting": prompting, "views": views, "parts": parts})
    if arguments.json:
        text = json.dumps({**where, "iterations": len(steps), "rows": rows}, indent=1)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
