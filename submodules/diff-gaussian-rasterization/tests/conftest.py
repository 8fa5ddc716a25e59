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
    """Output of a backend, and the gradients of a random linear function of its images."""

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


def make_needles(aspect: float) -> Scene:
    """A scene of needles, so many times as long as wide."""
    scene = make_scene(40, views=2, width=64, height=64, degree=None, seed=3)
    scene.gaussians["scales"] = torch.tensor([0.5, 0.5 / aspect, 0.5 / aspect]).repeat(40, 1)
    scene.gaussians["opacities"] = torch.full((40, 1), 0.8)
    return scene


def render(
    scene: Scene, backend: str | None, dtype: torch.dtype = torch.float32, device: str = "cpu", **options: Any
) -> Run:
    """Render forward and backward; the gradients are those of the Gaussians, of means2d and of the
    background. All on the host.
    """
    leaves = {
        name: tensor.detach().to(device, dtype).requires_grad_() for name, tensor in scene.gaussians.items()
    }
    cameras = {
        name: value.detach().clone().to(device, dtype) if isinstance(value, Tensor) else value
        for name, value in scene.cameras.items()
    }
    cameras["background"].requires_grad_()
    positional = (leaves.get(name) for name in ("means", "scales", "rotations", "opacities"))
    named = {name: leaves[name] for name in ("shs", "colors", "covariances") if name in leaves}
    out = rasterize(*positional, **named, **cameras, backend=backend, **options)
    rng = torch.Generator().manual_seed(99)
    loss = sum(
        (i * torch.randn(i.shape, generator=rng).to(device, dtype)).sum()
        for i in (out.rgb, out.depth, out.alpha)
    )
    loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    gradients |= {"means2d": out.means2d.grad, "background": cameras["background"].grad}
    on_host = RasterOutput(**{name: tensor.detach().cpu() for name, tensor in vars(out).items()})
    return Run(on_host, {name: gradient.cpu() for name, gradient in gradients.items()})


def camera_gradients(
    scene: Scene, backend: str | None, dtype: torch.dtype = torch.float32, device: str = "cpu", **options: Any
) -> dict[str, Tensor]:
    """Gradients of the cameras, of a random linear function of the images, on the host."""
    given = {name: tensor.to(device, dtype) for name, tensor in scene.gaussians.items()}
    cameras = {
        name: value.to(device, dtype) if isinstance(value, Tensor) else value
        for name, value in scene.cameras.items()
    }
    leaves = {name: cameras[name].clone().requires_grad_() for name in ("viewmats", "focals", "principals")}
    positional = (given.get(name) for name in ("means", "scales", "rotations", "opacities"))
    named = {name: given[name] for name in ("shs", "colors", "covariances") if name in given}
    out = rasterize(*positional, **named, **(cameras | leaves), backend=backend, **options)
    rng = torch.Generator().manual_seed(99)
    loss = sum(
        (i * torch.randn(i.shape, generator=rng).to(device, dtype)).sum()
        for i in (out.rgb, out.depth, out.alpha)
    )
    loss.backward()
    return {name: leaf.grad.cpu() for name, leaf in leaves.items()}


def errors(actual: Tensor, expected: Tensor) -> Tensor:
    """Errors of each entry, in units of the largest expected."""
    scale = max(expected.abs().max().item(), 1e-6)
    return (actual.double() - expected.double()).abs().flatten() / scale


def assert_agrees(actual: Tensor, expected: Tensor, rounding: float, crossing: float, name: str = "") -> None:
    """Check that 99.5% of the entries are within `rounding` of the largest, and all within `crossing`.

    Where alpha meets 1/255, or transmittance 1e-4, to within rounding, a pixel may be taken by one and not the other.
    """
    assert actual.shape == expected.shape, name
    if expected.numel() == 0:
        return
    error = errors(actual, expected)
    assert error.max() <= crossing, f"{name}: {error.max():.1e}"
    assert (error > rounding).double().mean() <= 5e-3, f"{name}: {error.quantile(0.995):.1e}"


def images_and_gradients(run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    out = run.output
    return {
        "rgb": out.rgb,
        "depth": out.depth,
        "alpha": out.alpha,
        "means2d": out.means2d.detach(),
    }, run.gradients


def assert_runs_agree(actual: Run, expected: Run, single: Run | None = None) -> None:
    """Check images to 1e-5 and gradients to 2e-5 of the largest entry, but for pixels on a threshold.

    single: the twin's results in float32. On an ill-conditioned scene (needles, Gaussians much larger than
    the image) it errs more than that, and so may others: up to ten times as much as its own worst.
    """
    # A Gaussian on a bound to within rounding may count as seen by one and not by the other.
    few = 1 + 5e-3 * expected.output.radii.numel()
    differ = (actual.output.radii - expected.output.radii).abs() > 1e-3 * expected.output.radii + 1
    assert differ.sum() <= few
    assert (actual.output.counts - expected.output.counts).abs().max() <= few
    assert ((actual.output.radii > 0) == (actual.output.means2d != 0).any(dim=-1)).all()
    assert (actual.output.counts.sum(dim=1) == expected.output.radii.shape[1]).all()
    for kind, found, wanted in zip(
        ("", "gradient of "), images_and_gradients(actual), images_and_gradients(expected)
    ):
        most, worst = (1e-5, 1e-2) if not kind else (2e-5, 1e-2)
        if single is not None:
            for name, tensor in images_and_gradients(single)[bool(kind)].items():
                if tensor.numel() and name != "background":
                    error = errors(tensor, wanted[name])
                    most, worst = max(most, 10 * error.quantile(0.995)), max(worst, 10 * error.max())
        for name, tensor in wanted.items():
            if (
                name == "background"
            ):  # a sum over all pixels of random numbers times what is left of the transmittance
                unit = max(tensor.abs().max().item(), math.prod(expected.output.alpha.shape[2:]) ** 0.5)
                found[name], tensor = found[name] / unit, tensor / unit
                assert (found[name] - tensor).abs().max() <= max(1e-3, worst), kind + name
            elif kind + name == "means2d":
                both = (actual.output.radii > 0) & (expected.output.radii > 0)
                assert_agrees(found[name][both], tensor[both], most, worst, name)
            else:
                assert_agrees(found[name], tensor, most, worst, kind + name)


@dataclass
class Tools:
    """Tools of this file, for tests that cannot import a conftest."""

    scene: Callable[..., Scene] = make_scene
    needles: Callable[[float], Scene] = make_needles
    render: Callable[..., Run] = render
    agree: Callable[..., None] = assert_runs_agree
    camera_gradients: Callable[..., dict[str, Tensor]] = camera_gradients


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture(params=cpu.levels())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this processor has, one after another."""
    monkeypatch.setenv(cpu.CHOICE, request.param)
    return request.param


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set torch's number of threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def pinhole() -> Callable[..., dict[str, Any]]:
    """Keyword arguments of one camera at the origin that looks along z."""

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
