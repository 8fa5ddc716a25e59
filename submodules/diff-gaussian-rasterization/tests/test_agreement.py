"""Check the CPU backend against the twin in float64, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

CASES = [
    pytest.param({"count": 60, "degree": 0}, id="degree-0"),
    pytest.param({"count": 200, "views": 3, "width": 97, "height": 70, "degree": 1}, id="degree-1-odd-size"),
    pytest.param({"count": 150, "views": 2, "width": 33, "height": 131, "degree": 2}, id="degree-2-tall"),
    pytest.param({"count": 120, "views": 2, "width": 130, "height": 65, "degree": 3}, id="degree-3-wide"),
    pytest.param({"count": 150, "degree": None}, id="colors"),
    pytest.param({"count": 150, "degree": None, "covariances": True}, id="covariances"),
    pytest.param({"count": 100, "degree": 2, "covariances": True, "views": 2}, id="covariances-degree-2"),
    pytest.param({"count": 1, "width": 1, "height": 1, "size": 0.5}, id="one-pixel"),
    pytest.param({"count": 40, "width": 200, "height": 90, "size": 1.0}, id="larger-than-the-image"),
    pytest.param({"count": 400, "size": 0.01, "width": 64, "height": 64}, id="smaller-than-a-pixel"),
    pytest.param({"count": 1500, "width": 24, "height": 20, "size": 0.3}, id="crowded-until-opaque"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("antialiasing", [False, True], ids=["plain", "antialiased"])
def test_agrees_with_the_twin(case: dict[str, Any], antialiasing: bool, level: str, tools: Any) -> None:
    scene = tools.scene(**case)
    actual = tools.render(scene, "cpu", antialiasing=antialiasing)
    tools.agree(actual, tools.render(scene, "reference", torch.float64, antialiasing=antialiasing))


@pytest.mark.parametrize("aspect", [10, 100, 1000])
@pytest.mark.parametrize("antialiasing", [False, True], ids=["plain", "antialiased"])
def test_needles_keep_their_digits(aspect: int, antialiasing: bool, level: str, tools: Any) -> None:
    """Errors against the twin in float64 are small, and for the thinnest far below its textbook formulas' in
    float32.
    """
    scene = tools.needles(aspect)
    exact = tools.render(scene, "reference", torch.float64, antialiasing=antialiasing)
    actual = tools.render(scene, "cpu", antialiasing=antialiasing)
    textbook = tools.render(scene, "reference", antialiasing=antialiasing)

    def error(run: Any, name: str) -> float:
        expected = exact.output.rgb if name == "rgb" else exact.gradients[name]
        found = run.output.rgb if name == "rgb" else run.gradients[name]
        return float((found - expected).norm() / expected.norm())

    assert error(actual, "rgb") < 1e-6
    assert error(actual, "scales") < 1e-4
    if aspect == 1000 and antialiasing:
        assert error(textbook, "rgb") > 100 * error(actual, "rgb")
        assert error(textbook, "scales") > 100 * error(actual, "scales")


@pytest.mark.parametrize("degree", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("covariances", [False, True])
def test_camera_gradients(degree: int | None, covariances: bool, level: str, tools: Any) -> None:
    """Gradients agree to 1e-4: each number holds every Gaussian, so that one pixel on a threshold shows."""
    scene = tools.scene(300, views=2, width=50, height=35, degree=degree, covariances=covariances)
    scene.gaussians["means"] *= 2  # some beyond the limits of x/z and y/z
    expected = tools.camera_gradients(scene, "reference", torch.float64, antialiasing=covariances)
    actual = tools.camera_gradients(scene, "cpu", antialiasing=covariances)
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("wanted", ["viewmats", "focals", "principals"])
def test_gradients_of_one_part_of_the_cameras(wanted: str, tools: Any) -> None:
    from diff_gaussian_rasterization import rasterize

    scene = tools.scene(60, views=2)
    leaf = scene.cameras[wanted].clone().requires_grad_()
    out = rasterize(**scene.gaussians, **{**scene.cameras, wanted: leaf})
    out.rgb.square().sum().backward()
    expected = scene.cameras[wanted].clone().requires_grad_()
    out = rasterize(**scene.gaussians, **{**scene.cameras, wanted: expected}, backend="reference")
    out.rgb.square().sum().backward()
    assert (leaf.grad - expected.grad).norm() <= 1e-4 * expected.grad.norm()


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_uses_only_the_coefficients_of_the_degree(sh_degree: int, tools: Any) -> None:
    scene = tools.scene(80, degree=3)
    scene.cameras["sh_degree"] = sh_degree
    actual = tools.render(scene, "cpu")
    tools.agree(actual, tools.render(scene, "reference", torch.float64))
    assert actual.gradients["shs"][:, (sh_degree + 1) ** 2 :].abs().sum() == 0


def test_scale_modifier(tools: Any) -> None:
    scene = tools.scene(80)
    actual = tools.render(scene, "cpu", scale_modifier=1.7)
    tools.agree(actual, tools.render(scene, "reference", torch.float64, scale_modifier=1.7))


def test_the_default_backend_is_the_device_own(tools: Any) -> None:
    scene = tools.scene(30)
    assert torch.equal(tools.render(scene, None).output.rgb, tools.render(scene, "cpu").output.rgb)


def test_gradients_of_some_outputs_only(tools: Any) -> None:
    """Outputs that the loss leaves out count as zero."""
    from diff_gaussian_rasterization import rasterize

    scene = tools.scene(50, views=2)
    for name in ("rgb", "depth", "alpha"):
        gradients = {}
        for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
            leaves = {k: t.detach().clone().to(dtype).requires_grad_() for k, t in scene.gaussians.items()}
            cameras = {k: t.to(dtype) if isinstance(t, Tensor) else t for k, t in scene.cameras.items()}
            out = rasterize(**leaves, **cameras, backend=backend)
            getattr(out, name).square().sum().backward()
            gradients[backend] = {
                k: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for k, leaf in leaves.items()
            }
        for key, expected in gradients["reference"].items():
            actual = gradients["cpu"][key]
            scale = expected.abs().max().clamp(min=1e-6)
            assert ((actual - expected).abs() <= 2e-5 * scale).double().mean() > 0.995


def test_only_what_requires_a_gradient_gets_one(tools: Any) -> None:
    from diff_gaussian_rasterization import rasterize

    scene = tools.scene(30)
    scene.gaussians["opacities"].requires_grad_()
    out = rasterize(**scene.gaussians, **scene.cameras)
    out.rgb.sum().backward()
    assert scene.gaussians["opacities"].grad is not None
    assert all(t.grad is None for name, t in scene.gaussians.items() if name != "opacities")


def test_other_float_types_are_computed_in_float32(tools: Any) -> None:
    from diff_gaussian_rasterization import rasterize

    scene = tools.scene(30)
    halves = {name: t.to(torch.bfloat16).requires_grad_() for name, t in scene.gaussians.items()}
    out = rasterize(**halves, **scene.cameras)
    out.rgb.sum().backward()
    singles = {name: t.detach().float() for name, t in halves.items()}
    assert torch.equal(out.rgb, rasterize(**singles, **scene.cameras).rgb)
    assert all(t.grad is not None and t.grad.dtype == torch.bfloat16 for t in halves.values())
