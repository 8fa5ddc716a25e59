"""`python benchmarks/rasterizer.py`: milliseconds of our CPU rasterizer beside its peers, forward and backward.

The scene: N Gaussians uniform in a ball, isotropic but for a factor of two, sized so that the median radius on the
screen (three standard deviations) is 16 px, that is a footprint of about 32 px; V cameras around it at 512² or 256².
Every call returns RGB, depth and alpha, and the backward gives all gradients. Peers that cannot be imported, or that
do not run on this device, are left out; the twin is timed on a scene that it can hold. Medians over --repeats calls.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diff_gaussian_rasterization import rasterize

FOCAL_IN_HEIGHTS = 1.8
DISTANCE = 4.0
Render = Callable[..., tuple[Tensor, Tensor, Tensor]]


def make_scene(count: int, views: int, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leaves that require gradients, and cameras, of a random scene."""
    rng = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=rng), dim=-1)
    means = direction * torch.rand(count, 1, generator=rng).pow(1 / 3)
    sigma = 16 / 3 * DISTANCE / (FOCAL_IN_HEIGHTS * size)
    gaussians = {
        "means": means,
        "scales": sigma * torch.exp2(torch.rand(count, 3, generator=rng) - 0.5),
        "rotations": torch.randn(count, 4, generator=rng),
        "opacities": torch.rand(count, 1, generator=rng),
        "shs": torch.randn(count, 1, 3, generator=rng),
    }
    angle = 2 * torch.pi * torch.arange(views) / views
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(views), torch.ones(views)
    rows = [torch.stack(row, -1) for row in ((-sin, cos, zero, zero), (zero, zero, -one, zero))]
    rows += [torch.stack(row, -1) for row in ((-cos, -sin, zero, DISTANCE * one), (zero, zero, zero, one))]
    cameras = {
        "viewmats": torch.stack(rows, dim=1),
        "focals": torch.full((views, 2), FOCAL_IN_HEIGHTS * size),
        "principals": torch.full((views, 2), (size - 1) / 2),
    }
    return {name: value.requires_grad_() for name, value in gaussians.items()}, cameras


def ours(backend: str) -> Render:
    def render(
        gaussians: dict[str, Any], cameras: dict[str, Any], size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        out = rasterize(
            **gaussians, **cameras, width=size, height=size, background=torch.zeros(3), backend=backend
        )
        return out.rgb, out.depth, out.alpha

    return render


def time_calls(render: Render, count: int, views: int, size: int, repeats: int) -> tuple[float, float]:
    """Median milliseconds of forward and backward, after one call to warm up."""
    gaussians, cameras = make_scene(count, views, size)
    upstream = None
    forward, backward = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        images = render(gaussians, cameras, size)
        middle = time.perf_counter()
        if upstream is None:
            upstream = [torch.randn(image.shape) for image in images]
        torch.autograd.backward(images, upstream)
        end = time.perf_counter()
        for leaf in gaussians.values():
            leaf.grad = None
        forward.append(1e3 * (middle - start))
        backward.append(1e3 * (end - middle))
    return statistics.median(forward[1:]), statistics.median(backward[1:])


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    rows = []
    for size, count in ((256, 20_000), (512, 20_000), (512, 100_000)):
        for views in (1, 4):
            rows.append(
                (
                    "ours, CPU",
                    size,
                    count,
                    views,
                    *time_calls(ours("cpu"), count, views, size, arguments.repeats),
                )
            )
    # The twin holds every Gaussian against every pixel: a scene that fits in memory, beside ours on the same.
    small = (64, 1000, 1)
    twin = time_calls(ours("reference"), small[1], small[2], small[0], 3)
    fast = time_calls(ours("cpu"), small[1], small[2], small[0], arguments.repeats)
    rows += [("ours, CPU", *small, *fast), ("twin, PyTorch", *small, *twin)]

    rasterizer = importlib.metadata.version("diff-gaussian-rasterization")
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, rasterizer {rasterizer}"
    )
    print(
        "| what | image | Gaussians | views | forward ms | backward ms | both ms |\n|---|---|---|---|---|---|---|"
    )
    for name, size, count, views, forward, backward in rows:
        print(
            f"| {name} | {size}² | {count} | {views} | {forward:.1f} | {backward:.1f} | {forward + backward:.1f} |"
        )
    print(
        f"ours against the twin, {small[1]} Gaussians at {small[0]}²: {sum(twin) / sum(fast):.0f} times faster"
    )
    if arguments.json:
        keys = ("what", "size", "gaussians", "views", "forward_ms", "backward_ms")
        arguments.json.write_text(json.dumps([dict(zip(keys, row)) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
