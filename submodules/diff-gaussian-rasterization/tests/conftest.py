"""Random scenes, and a run through one backend with every gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import RasterOutput, cpu, rasterize


@dataclass
class Scene:
    """Keyword arguments of rasterize: the Gaussians' and the cameras'."""

    gaussians: dict[str, Tensor]
    cameras: dict[str, Any]


@dataclass
class Run:
    """What a backend returned, and the gradients of a random linear function of its images."""

    output: RasterOutput
    gradients: dict[str, Tensor] = field(default_factory=dict)


def make_scene(
    count: int,
    views: int = 1,
    width: int = 48,
    height: int = 40,
    *,
    seed: int = 0,
    degree: int | None = 1,
    covariances: bool = False,
    size: float = 0.1,
) -> Scene:
    """Gaussians around the origin, cameras 3 away in random directions; degree None gives plain colors."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    gaussians = {"means": 0.6 * normal(count, 3), "opacities": torch.rand(count, 1, generator=rng)}
    scales, rotations = size * torch.exp(0.5 * normal(count, 3)), normal(count, 4)
    if covariances:
        factor = normal(count, 3, 3) * size
        full = factor @ factor.mT
        gaussians["covariances"] = full[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    else:
        gaussians |= {"scales": scales, "rotations": rotations}
    if degree is None:
        gaussians["colors"] = torch.rand(count, 3, generator=rng)
    else:
        gaussians["shs"] = 0.5 * normal(count, (degree + 1) ** 2, 3)

    viewmats = torch.eye(4).repeat(views, 1, 1)
    for view in range(views):
        rotation, _ = torch.linalg.qr(normal(3, 3))
        viewmats[view, :3, :3] = rotation * torch.det(rotation).sign()
        viewmats[view, :3, 3] = torch.tensor([0.1 * view, -0.1, 3.0])
    cameras = {
        "viewmats": viewmats,
        "focals": torch.tensor([1.1 * width, 1.0 * width]).repeat(views, 1),
        "principals": torch.tensor([width / 2 - 0.5, height / 2 - 0.3]).repeat(views, 1),
        "width": width,
        "height": height,
        "background": torch.rand(views, 3, generator=rng),
        "sh_degree": degree or 0,
    }
    return Scene(gaussians, cameras)


def render(scene: Scene, backend: str, dtype: torch.dtype = torch.float32, **options: Any) -> Run:
    """Forward and backward; the gradients are those of the Gaussians, of means2d and of the background."""
    leaves = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in scene.gaussians.items()}
    cameras = {
        name: value.detach().clone().to(dtype) if isinstance(value, Tensor) else value
        for name, value in scene.cameras.items()
    }
    cameras["background"].requires_grad_()
    positional = (leaves.get(name) for name in ("means", "scales", "rotations", "opacities"))
    named = {name: leaves[name] for name in ("shs", "colors", "covariances") if name in leaves}
    out = rasterize(*positional, **named, **cameras, backend=backend, **options)
    rng = torch.Generator().manual_seed(99)
    loss = sum(
        (i * torch.randn(i.shape, generator=rng).to(dtype)).sum() for i in (out.rgb, out.depth, out.alpha)
    )
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    return Run(out, gradients | {"means2d": out.means2d.grad, "background": cameras["background"].grad})


def assert_agrees(actual: Tensor, expected: Tensor, rounding: float, crossing: float, name: str = "") -> None:
    """99.5% of the entries within `rounding` of the largest, all of them within `crossing`.

    Where alpha meets 1/255, or transmittance 1e-4, to within rounding, a pixel may be taken by one and not the other.
    """
    assert actual.shape == expected.shape, name
    if expected.numel() == 0:
        return
    scale = max(expected.abs().max().item(), 1e-6)
    error = (actual.double() - expected.double()).abs() / scale
    assert error.max() <= crossing, f"{name}: {error.max():.1e}"
    assert (error > rounding).double().mean() <= 5e-3, f"{name}: {error.quantile(0.995):.1e}"


def assert_runs_agree(actual: Run, expected: Run) -> None:
    """Images to 1e-5 and gradients to 2e-5 of the largest entry, but for pixels on a threshold."""
    for name in ("rgb", "depth", "alpha"):
        assert_agrees(getattr(actual.output, name), getattr(expected.output, name), 1e-5, 1e-2, name)
    assert_agrees(actual.output.means2d.detach(), expected.output.means2d.detach(), 1e-5, 1e-5, "means2d")
    assert (actual.output.radii != expected.output.radii).double().mean() <= 5e-3
    # A Gaussian on a bound to within rounding may count as seen by one and not by the other.
    assert (
        actual.output.counts - expected.output.counts
    ).abs().max() <= 1 + 5e-3 * expected.output.radii.shape[1]
    assert (actual.output.counts.sum(dim=1) == expected.output.radii.shape[1]).all()
    for name, gradient in expected.gradients.items():
        rounding = 1e-3 if name == "background" else 2e-5  # three numbers, each with every pixel in it
        assert_agrees(actual.gradients[name], gradient, rounding, 1e-2, f"gradient of {name}")


@dataclass
class Tools:
    """The functions above, for tests that cannot import a conftest."""

    scene: Callable[..., Scene] = make_scene
    render: Callable[..., Run] = render
    agree: Callable[..., None] = assert_runs_agree


@pytest.fixture
def tools() -> Tools:
    return Tools()


def _levels() -> list[str]:
    return list(cpu.LEVELS[: cpu.LEVELS.index(cpu.best_level()) + 1])


@pytest.fixture(params=_levels())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every instruction set that this processor has, one after another."""
    monkeypatch.setattr(cpu, "best_level", lambda: request.param)
    return request.param


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, and sets it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def pinhole() -> Callable[..., dict[str, Any]]:
    """One camera at the origin that looks along z."""

    def camera(width: int, height: int, focal: float = 50.0, **more: Any) -> dict[str, Any]:
        return {
            "viewmats": torch.eye(4)[None],
            "focals": torch.full((1, 2), focal),
            "principals": torch.tensor(
                [[math.floor(width / 2), math.floor(height / 2)]], dtype=torch.float32
            ),
            "width": width,
            "height": height,
            "background": torch.tensor([0.1, 0.2, 0.3]),
            **more,
        }

    return camera
