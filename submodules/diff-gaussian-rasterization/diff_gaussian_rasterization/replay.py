"""Run every backend on the inputs of a dump that debug=True wrote, and report how far they agree.

    python -m diff_gaussian_rasterization.replay snapshot_bw.dump

The yardstick is the twin in float64, or, where that would need too much memory, the first backend. Exits with 1 if a
backend fails, makes numbers that are not finite, or differs by more than 1% of the largest entry.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import reference
from .batched import BACKENDS, Backend
from .debug import FORMAT
from .scene import Gaussians, Views

MOST_PAIRS = 50_000_000
"""Pairs of a pixel and a Gaussian, at most; the twin needs 120 bytes for each."""
TOLERANCE = 1e-2
TWIN = "twin, float64"
IMAGES = ("rgb", "depth", "alpha")


@dataclass(frozen=True)
class Contender:
    """Backend, where and in what precision it runs."""

    name: str
    backend: Backend
    device: str
    dtype: torch.dtype


def load(path: str) -> dict[str, Any]:
    """The content of a dump, as debug.py describes it. Raises ValueError if it is none."""
    try:
        content = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a dump in format {FORMAT} of the rasterizer's debug mode.")
    return content


def contenders(content: dict[str, Any]) -> list[Contender]:
    """Contenders that can run here, the yardstick first."""
    g, views = Gaussians(**content["gaussians"]), Views(**content["views"])
    found = [
        Contender(name, backend, "cpu" if name == "reference" else name, torch.float32)
        for name, backend in BACKENDS.items()
        if name != "cuda" or torch.cuda.is_available()
    ]
    if twin_pairs(g, views) <= MOST_PAIRS:
        return [Contender(TWIN, reference.rasterize, "cpu", torch.float64), *found]
    return [contender for contender in found if contender.name != "reference"]


@torch.no_grad()
def twin_pairs(g: Gaussians, views: Views) -> float:
    """Pixels that the twin looks at for every Gaussian, in all: those of the tiles that its bounds touch."""
    total = 0.0
    for view in range(len(views.viewmats)):
        p = reference.project(g, views, view)
        shown = (p.depths > views.near) & p.means.isfinite().all(dim=1)
        size = torch.tensor([views.width, views.height]).to(p.means)
        half = reference.reach(p)
        low, high = (p.means - half).clamp(min=0), torch.minimum(p.means + half, size)
        spans = ((high - low).clamp(min=0) + reference.TILE).prod(dim=1)
        total += spans[shown & (half[:, 0] >= 0) & (high > low).all(dim=1)].nansum().item()
    return total


def run(contender: Contender, content: dict[str, Any]) -> dict[str, Tensor]:
    """Images and gradients by name, on the host, in float64."""

    def place(value: Any) -> Any:
        moves = isinstance(value, Tensor)
        return value.detach().to(contender.device, contender.dtype) if moves else value

    tensors = {name: place(value) for name, value in content["gaussians"].items()}
    views = Views(**{name: place(value) for name, value in content["views"].items()})
    anchor = torch.zeros(len(views.viewmats), len(tensors["means"]), 2)
    wanted = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    wanted |= {"means2d": place(anchor), "backgrounds": views.backgrounds}
    for tensor in wanted.values():
        tensor.requires_grad_()
    *images, radii, counts = contender.backend(
        Gaussians(**tensors), views, wanted["means2d"], place(anchor.clone())
    )
    upstream = [place(gradient) for gradient in content["upstream"] or random_upstream(images)]
    outputs, given = zip(
        *((image, gradient) for image, gradient in zip(images, upstream) if gradient is not None)
    )
    gradients = torch.autograd.grad(outputs, list(wanted.values()), given, allow_unused=True)
    found = {**dict(zip(IMAGES, images)), "radii": radii, "counts": counts}
    found |= {f"gradient of {name}": g for name, g in zip(wanted, gradients) if g is not None}
    return {name: tensor.detach().cpu().double() for name, tensor in found.items()}


def random_upstream(images: list[Tensor]) -> list[Tensor]:
    """Gradients for a dump of a forward, the same for every backend."""
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(image.shape, generator=rng) for image in images]


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, over the largest entry; NaN if a number is not finite on one side alone."""
    if torch.equal(actual, expected):
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def describe(content: dict[str, Any]) -> str:
    """Describe what the dump holds, where it was made and why."""
    g, views = Gaussians(**content["gaussians"]), Views(**content["views"])
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return (
        f"{len(g.means)} Gaussians; {views.width} x {views.height} pixels; views: {len(views.viewmats)}\n"
        f"{content['backend']} on {content['device']}, {versions}\n"
        f"written because: {content['reason']}\n"
    )


def report(results: dict[str, dict[str, Tensor]]) -> bool:
    """Print a table, a line per image and gradient. Returns whether all agree and are finite."""
    yardstick, *others = results
    print(f"{'':26}{'largest':>12}" + "".join(f"{name:>16}" for name in others) + f"   against {yardstick}")
    good = True
    for name, expected in results[yardstick].items():
        differences = [difference(results[other][name], expected) for other in others]
        largest = expected.abs().max().item() if expected.numel() else 0.0
        print(f"{name:26}{largest:12.3g}" + "".join(f"{value:16.1e}" for value in differences))
        finite = all(bool(result[name].isfinite().all()) for result in results.values())
        good &= finite and all(value <= TOLERANCE for value in differences)
    return good


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diff_gaussian_rasterization.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dump", help="snapshot_fw.dump or snapshot_bw.dump")
    path = parser.parse_args(arguments).dump
    try:
        content = load(path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(describe(content))
    results: dict[str, dict[str, Tensor]] = {}
    failed = False
    for contender in contenders(content):
        try:
            results[contender.name] = run(contender, content)
        except Exception:
            failed = True
            print(f"{contender.name} failed:\n{traceback.format_exc()}")
    good = report(results) if results else False
    return 0 if good and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
