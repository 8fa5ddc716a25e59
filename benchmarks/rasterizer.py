"""Times the rasterizer, forward and backward, beside every other one that can be imported and runs on this machine.

    python benchmarks/rasterizer.py [--size 512 --count 100000 --views 4] [--threads 2] [--json]

The scene: Gaussians spread evenly over a cube of side 2, cameras around it at distance 4 with a focal length of 1.2 image
sides, opacities even in 0 .. 1, axes log-normal (sigma 0.4) and of random orientation, plain colors. One factor on all
scales is chosen so that a Gaussian covers `--footprint` pixels on average: the area 2 pi ln(255 o) sqrt(det Sigma') in
which its alpha reaches 1/255. Gradients of RGB, depth and alpha are random; every parameter gets one.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diff_gaussian_rasterization import RasterOutput, cpu, rasterize, reference
from diff_gaussian_rasterization.scene import Gaussians, Views

# The twin keeps every pixel's list for autograd: beyond this many pixels times Gaussians it needs tens of gigabytes.
TWIN_LIMIT = 128**2 * 20_000


@dataclass(frozen=True)
class Row:
    """One rasterizer on one scene; milliseconds, medians. `why` tells why it was not run."""

    name: str
    version: str
    views: int
    size: int
    count: int
    forward: float | None = None
    backward: float | None = None
    total: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class Scene:
    """Arguments of rasterize, and the gradients to send back."""

    gaussians: dict[str, Any]
    cameras: dict[str, Any]
    upstream: tuple[Tensor, Tensor, Tensor]


def make_scene(count: int, views: int, size: int, footprint: float) -> Scene:
    """The scene of this module's docstring, the same for the same arguments."""
    rng = torch.Generator().manual_seed(0)
    gaussians = {
        "means": 2 * torch.rand(count, 3, generator=rng) - 1,
        "scales": torch.exp(0.4 * torch.randn(count, 3, generator=rng)),
        "rotations": torch.randn(count, 4, generator=rng),
        "opacities": torch.rand(count, generator=rng),
        "colors": torch.rand(count, 3, generator=rng),
    }
    viewmats = torch.eye(4).repeat(views, 1, 1)
    for view in range(views):
        angle = 2 * math.pi * view / views
        c, s = math.cos(angle), math.sin(angle)
        viewmats[view, :3] = torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 4]])
    cameras = {
        "viewmats": viewmats,
        "focals": torch.full((views, 2), 1.2 * size),
        "principals": torch.full((views, 2), (size - 1) / 2),
        "width": size,
        "height": size,
        "background": torch.ones(views, 3),
    }
    gaussians["scales"] *= _scale_for(footprint, gaussians, cameras)
    upstream = tuple(torch.randn(views, channels, size, size, generator=rng) for channels in (3, 1, 1))
    leaves = {name: tensor.requires_grad_() for name, tensor in gaussians.items()}
    return Scene(leaves, cameras, (upstream[0], upstream[1], upstream[2]))


def _scale_for(footprint: float, gaussians: dict[str, Tensor], cameras: dict[str, Any]) -> float:
    """By bisection of the logarithm, on the first view."""
    views = Views(
        **{name: cameras[name] for name in ("viewmats", "focals", "principals", "width", "height")},
        backgrounds=cameras["background"],
        sh_degree=0,
        scale_modifier=1.0,
        near=0.2,
        antialiasing=False,
    )
    low, high = math.log(1e-6), math.log(1e2)
    for _ in range(40):
        middle = (low + high) / 2
        g = Gaussians(
            **{**gaussians, "scales": gaussians["scales"] * math.exp(middle)}, covariances=None, shs=None
        )
        p = reference.project(g, views, 0)
        logs = (255 * p.opacities).log()
        areas = 2 * math.pi * logs * reference.determinant(p.covariances).sqrt()
        if areas[logs > 0].mean() < footprint:
            low = middle
        else:
            high = middle
    return math.exp(low)


def run_ours(scene: Scene, backend: str) -> tuple[Tensor, ...]:
    out: RasterOutput = rasterize(**scene.gaussians, **scene.cameras, backend=backend)
    return out.rgb, out.depth, out.alpha


def run_gsplat(scene: Scene) -> tuple[Tensor, ...]:
    """gsplat's implementation in torch, colors and depth as four channels."""
    from gsplat.cuda import _torch_impl as impl

    g, c = scene.gaussians, scene.cameras
    size, views = c["width"], len(c["viewmats"])
    intrinsics = torch.eye(3).repeat(views, 1, 1)
    intrinsics[:, [0, 1], [0, 1]] = c["focals"]
    intrinsics[:, :2, 2] = c["principals"] + 0.5
    covariances, _ = impl._quat_scale_to_covar_preci(g["rotations"], g["scales"], compute_preci=False)
    projection = impl._fully_fused_projection(g["means"], covariances, c["viewmats"], intrinsics, size, size)
    radii, means2d, depths, conics, _ = projection
    tiles = math.ceil(size / 16)
    _, ids, flat = impl._isect_tiles(means2d, radii, depths, 16, tiles, tiles)
    offsets = impl._isect_offset_encode(ids, views, tiles, tiles)
    channels = torch.cat([g["colors"].expand(views, -1, -1), depths[..., None]], dim=-1)
    opacities = g["opacities"].expand(views, -1)
    image, alpha = impl._rasterize_to_pixels(
        means2d, conics, channels, opacities, size, size, 16, offsets, flat
    )
    image = image.movedim(-1, 1)
    return image[:, :3], image[:, 3:], alpha.movedim(-1, 1)


def peers() -> Iterator[tuple[str, str, Callable[[Scene], tuple[Tensor, ...]], str]]:
    """Name, version, how to run it, and whether there is a limit ("" or "pixels")."""
    own = metadata.version("diff-gaussian-rasterization")
    yield f"ours ({cpu.best_level()})", own, partial(run_ours, backend="cpu"), ""
    yield "our twin in torch", own, partial(run_ours, backend="reference"), "pixels"
    try:
        yield "gsplat in torch", metadata.version("gsplat"), run_gsplat, "pixels"
    except metadata.PackageNotFoundError:
        return


def measure(
    run: Callable[[Scene], tuple[Tensor, ...]], scene: Scene, repeats: int
) -> tuple[float, float, float]:
    """Median milliseconds of forward, of backward and of their sum, after one run to warm up."""
    times = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        images = run(scene)
        middle = time.perf_counter()
        torch.autograd.backward(images, scene.upstream)
        end = time.perf_counter()
        for leaf in scene.gaussians.values():
            leaf.grad = None
        if repeat:
            times.append((middle - start, end - middle, end - start))
    forward, backward, total = (1e3 * statistics.median(column) for column in zip(*times))
    return forward, backward, total


def benchmark(views: int, size: int, count: int, footprint: float, repeats: int) -> Iterator[Row]:
    scene = make_scene(count, views, size, footprint)
    for name, version, run, limit in peers():
        row = partial(Row, name, version, views, size, count)
        if limit == "pixels" and views * size**2 * count > TWIN_LIMIT:
            yield row(why="not run: needs too much memory at this size")
            continue
        try:
            forward, backward, total = measure(run, scene, repeats if name.startswith("ours") else 1)
        except (ImportError, RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            yield row(why=f"not run: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        yield row(forward=forward, backward=backward, total=total)


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show(rows: list[Row]) -> None:
    print(f"{'rasterizer':22}{'version':>9}{'views':>7}{'size':>6}{'Gaussians':>11}", end="")
    print(f"{'forward':>10}{'backward':>10}{'total ms':>10}{'x ours':>8}")
    ours = 0.0
    for row in rows:
        print(f"{row.name:22}{row.version:>9}{row.views:>7}{row.size:>6}{row.count:>11}", end="")
        if row.total is None:
            print(f"  {row.why}")
            continue
        ours = row.total if row.name.startswith("ours") else ours
        print(f"{row.forward:10.2f}{row.backward:10.2f}{row.total:10.2f}{row.total / ours:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256, 512], help="image side in pixels")
    parser.add_argument("--count", type=int, nargs="+", default=[20_000, 100_000], help="Gaussians")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4])
    parser.add_argument(
        "--footprint", type=float, default=32.0, help="pixels that a Gaussian covers on average"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [
        row
        for size in arguments.size
        for count in arguments.count
        for views in arguments.views
        for row in benchmark(views, size, count, arguments.footprint, arguments.repeats)
    ]
    where = {"processor": processor(), "threads": arguments.threads, "torch": torch.__version__}
    if arguments.json:
        print(
            json.dumps(
                {**where, "footprint": arguments.footprint, "rows": [asdict(row) for row in rows]}, indent=2
            )
        )
        return
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    show(rows)


if __name__ == "__main__":
    main()
