"""Check the twin against calculations by hand, quadrature and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import rasterize, reference
from diff_gaussian_rasterization.scene import Gaussians, Views

BACKENDS = ["cpu", "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_gaussian_by_hand(backend: str, pinhole: Any) -> None:
    """A ball on the axis projects to a circle of variance (f s / z)^2 + 0.3."""
    opacity, scale, depth, focal = 0.8, 0.05, 2.0, 50.0
    color = torch.tensor([0.9, 0.5, 0.1])
    out = rasterize(
        torch.tensor([[0.0, 0.0, depth]]),
        torch.full((1, 3), scale),
        torch.tensor([[0.3, -0.5, 0.2, 0.9]]),
        torch.tensor([opacity]),
        colors=color[None],
        **pinhole(21, 15, focal),
        backend=backend,
    )
    variance = (focal * scale / depth) ** 2 + 0.3
    background = torch.tensor([0.1, 0.2, 0.3])
    for x, y in [(10, 7), (11, 7), (9, 9), (12, 5), (10, 3), (20, 14)]:
        alpha = opacity * math.exp(-0.5 * ((x - 10) ** 2 + (y - 7) ** 2) / variance)
        alpha = alpha if alpha >= 1 / 255 else 0.0
        assert torch.allclose(out.rgb[0, :, y, x], alpha * color + (1 - alpha) * background, atol=1e-6)
        assert out.depth[0, 0, y, x].item() == pytest.approx(alpha * depth, abs=1e-5)
        assert out.alpha[0, 0, y, x].item() == pytest.approx(alpha, abs=1e-6)
    assert out.radii.item() == math.ceil(3 * math.sqrt(variance))
    assert out.means2d[0, 0].tolist() == pytest.approx([10.0, 7.0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_by_hand(backend: str, pinhole: Any) -> None:
    """Alpha is capped at 0.99; the pixel stops before the layer that would leave less than 1e-4, not after it."""
    depths, opacities = [3.0, 2.0, 4.0, 5.0, 1.0], [0.95, 0.5, 0.95, 0.99, 1.0]
    out = rasterize(
        torch.tensor([[0.0, 0.0, z] for z in depths]),
        torch.full((5, 3), 30.0),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(5, 1),
        torch.tensor(opacities),
        colors=torch.eye(5, 3) + 0.1,
        **pinhole(1, 1),
        backend=backend,
    )
    transmittance, color, depth = 1.0, torch.zeros(3), 0.0
    for i in (
        4,
        1,
        0,
    ):  # behind them 0.01 * 0.5 * 0.05 = 2.5e-4 is left, and 0.95 of the next would leave too little
        alpha = min(0.99, opacities[i])
        color += transmittance * alpha * (torch.eye(5, 3)[i] + 0.1)
        depth += transmittance * alpha * depths[i]
        transmittance *= 1 - alpha
    assert torch.allclose(
        out.rgb[0, :, 0, 0], color + transmittance * torch.tensor([0.1, 0.2, 0.3]), atol=1e-6
    )
    assert out.depth.item() == pytest.approx(depth, abs=1e-5)
    assert out.alpha.item() == pytest.approx(1 - transmittance, abs=1e-6)


def _views(width: int, height: int) -> Views:
    viewmats = torch.eye(4, dtype=torch.float64)[None].repeat(1, 1, 1)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())
    viewmats[0, :3, :3] = rotation * torch.det(rotation).sign()
    viewmats[0, :3, 3] = torch.tensor([0.2, -0.1, 4.0])
    return Views(
        viewmats=viewmats,
        focals=torch.tensor([[60.0, 55.0]], dtype=torch.float64),
        principals=torch.tensor([[width / 2, height / 2]], dtype=torch.float64),
        backgrounds=torch.rand(1, 3, generator=torch.Generator().manual_seed(1)).double(),
        width=width,
        height=height,
        sh_degree=3,
        scale_modifier=1.0,
        near=0.2,
        antialiasing=False,
    )


def test_the_projected_covariance_is_the_jacobians() -> None:
    """Covariances agree with autograd's own Jacobian of the perspective projection, for Gaussians inside the
    clamp.
    """
    rng = torch.Generator().manual_seed(2)
    views = _views(64, 48)
    g = Gaussians(
        means=0.5 * torch.randn(6, 3, generator=rng).double(),
        opacities=torch.rand(6, generator=rng).double(),
        scales=torch.rand(6, 3, generator=rng).double(),
        rotations=torch.randn(6, 4, generator=rng).double(),
        covariances=None,
        shs=None,
        colors=torch.rand(6, 3, generator=rng).double(),
    )

    def pixel(mean: Tensor) -> Tensor:
        cam = views.viewmats[0, :3, :3] @ mean + views.viewmats[0, :3, 3]
        return views.focals[0] * cam[:2] / cam[2] + views.principals[0]

    projected = reference.project(g, views, 0)
    sigma = reference.covariance_matrices(g, 1.0)
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(pixel, g.means[i])
        expected = jacobian @ sigma[i] @ jacobian.T + 0.3 * torch.eye(2)
        assert torch.allclose(projected.means[i], pixel(g.means[i]))
        assert torch.allclose(projected.covariances[i], expected.reshape(-1)[[0, 1, 3]])


def test_covariances_have_the_scales_as_their_axes() -> None:
    rng = torch.Generator().manual_seed(3)
    scales, rotations = torch.rand(5, 3, generator=rng).double(), torch.randn(5, 4, generator=rng).double()
    matrices = reference.rotation_matrices(rotations)
    assert torch.allclose(matrices @ matrices.mT, torch.eye(3).double().expand(5, 3, 3))
    assert torch.allclose(torch.det(matrices), torch.ones(5).double())
    half = math.radians(30) / 2  # 30 degrees about z takes x towards y
    about_z = reference.rotation_matrices(torch.tensor([[math.cos(half), 0, 0, math.sin(half)]]).double())
    expected = torch.tensor([math.cos(2 * half), math.sin(2 * half), 0]).double()
    assert torch.allclose(about_z[0] @ torch.tensor([1.0, 0, 0]).double(), expected)
    g = Gaussians(torch.zeros(5, 3), torch.ones(5), scales, rotations, None, None, torch.zeros(5, 3))
    eigenvalues = torch.linalg.eigvalsh(reference.covariance_matrices(g, 2.0))
    assert torch.allclose(eigenvalues, (2 * scales).square().sort(dim=1).values)


def test_spherical_harmonics_are_orthonormal_and_have_the_usual_signs() -> None:
    """Quadrature over the sphere: Gauss-Legendre in cos(theta), equidistant in phi."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * (2 * np.pi / 16)
    z, p = (a.reshape(-1) for a in np.meshgrid(nodes, phi, indexing="ij"))
    r = np.sqrt(1 - z**2)
    directions = torch.from_numpy(np.stack([r * np.cos(p), r * np.sin(p), z], axis=1))
    basis = reference.sh_basis(directions, 3)
    area = torch.from_numpy(np.repeat(weights, 16) * (2 * np.pi / 16))
    assert torch.allclose((basis * area[:, None]).T @ basis, torch.eye(16).double(), atol=1e-12)
    axes = reference.sh_basis(torch.eye(3).double(), 3)
    for axis, k, sign in [
        (0, 3, -1),
        (1, 1, -1),
        (2, 2, 1),
        (0, 8, 1),
        (2, 6, 1),
        (2, 12, 1),
        (0, 15, -1),
        (1, 9, 1),
    ]:
        assert axes[axis, k] * sign > 0
    diagonal = reference.sh_basis(torch.tensor([[1.0, 1, 1]]).double() / math.sqrt(3), 3)[0]
    assert [diagonal[k] > 0 for k in (4, 5, 7, 10)] == [True, False, False, True]  # xy, -yz, -xz, xyz


@pytest.mark.parametrize(
    ("antialiasing", "form"),
    [
        pytest.param(False, "covariances", id="plain-covariances"),
        pytest.param(True, "scales", id="antialiased-scales"),
        pytest.param(False, "scales", id="plain-scales", marks=pytest.mark.thorough),
        pytest.param(True, "covariances", id="antialiased-covariances", marks=pytest.mark.thorough),
    ],
)
def test_gradcheck(antialiasing: bool, form: str) -> None:
    """Finite differences of every input, cameras included; no pixel is near a threshold in this scene."""
    rng = torch.Generator().manual_seed(5)
    count, views = 4, _views(5, 4)
    shapes: dict[str, Tensor] = {
        "means": 0.1 * torch.randn(count, 3, generator=rng),
        "opacities": 0.3 + 0.4 * torch.rand(count, generator=rng),
        "shs": 0.3 * torch.randn(count, 16, 3, generator=rng),
        "viewmats": views.viewmats,
        "focals": views.focals,
        "principals": views.principals,
        "backgrounds": views.backgrounds,
        "anchor": torch.zeros(1, count, 2),
    }
    if form == "scales":
        shapes |= {
            "scales": 1 + torch.rand(count, 3, generator=rng),
            "rotations": torch.randn(count, 4, generator=rng),
        }
    else:
        factor = 1.5 * torch.randn(count, 3, 3, generator=rng) + torch.eye(3)
        shapes["covariances"] = (factor @ factor.mT)[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    names = list(shapes)

    def image(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors))
        g = Gaussians(
            means=given["means"],
            opacities=given["opacities"],
            scales=given.get("scales"),
            rotations=given.get("rotations"),
            covariances=given.get("covariances"),
            shs=given["shs"],
            colors=None,
        )
        cameras = {key: given[key] for key in ("viewmats", "focals", "principals", "backgrounds")}
        here = Views(
            **cameras, width=5, height=4, sh_degree=3, scale_modifier=1.1, near=0.2, antialiasing=antialiasing
        )
        values = torch.empty(1, count, 2, dtype=torch.float64)
        rgb, depth, alpha, radii, _ = reference.rasterize(g, here, given["anchor"], values)
        assert (radii > 0).all()
        return torch.cat([rgb, depth, alpha], dim=1)

    inputs = [tensor.double().requires_grad_() for tensor in shapes.values()]
    # The anchor's values are not read: its gradient is checked through the principal point below.
    inputs[names.index("anchor")].requires_grad_(False)
    assert torch.autograd.gradcheck(image, inputs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_the_pixel_means_is_that_of_the_principal_point(backend: str, tools: Any) -> None:
    """Moving the principal point moves every pixel mean of the view by as much, and nothing else."""
    scene = tools.scene(80, views=2)
    summed = tools.render(scene, backend).gradients["means2d"].double().sum(1)
    step = 1e-6
    for view in range(2):
        for axis in range(2):
            losses = []
            for sign in (-1, 1):
                moved = tools.scene(80, views=2)
                moved.cameras["principals"] = moved.cameras["principals"].double()
                moved.cameras["principals"][view, axis] += sign * step
                out = tools.render(moved, "reference", torch.float64).output
                rng = torch.Generator().manual_seed(99)
                images = (out.rgb, out.depth, out.alpha)
                losses.append(sum((i * torch.randn(i.shape, generator=rng)).sum() for i in images).item())
            slope = (losses[1] - losses[0]) / (2 * step)
            assert summed[view, axis].item() == pytest.approx(slope, rel=2e-3, abs=2e-2)


def test_the_twin_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tools: Any) -> None:
    scene = tools.scene(60, width=50, height=37)
    images = []
    for tile in (7, 32, 64):
        monkeypatch.setattr(reference, "TILE", tile)
        images.append(tools.render(scene, "reference", torch.float64).output.rgb)
    assert torch.allclose(images[0], images[1], atol=1e-12)
    assert torch.allclose(images[0], images[2], atol=1e-12)


def test_the_antialiased_opacity_keeps_the_mass(pinhole: Any) -> None:
    """A Gaussian far below a pixel: the dilation spreads it, the filter keeps its integral at 2 pi sqrt(det) o."""
    scale, depth, focal = 0.02, 2.0, 50.0
    out = rasterize(
        torch.tensor([[0.0, 0.0, depth]]),
        torch.full((1, 3), scale),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.ones(1),
        colors=torch.ones(1, 3),
        **pinhole(31, 31, focal),
        antialiasing=True,
    )
    variance = (focal * scale / depth) ** 2
    assert out.alpha.max().item() == pytest.approx(variance / (variance + 0.3), rel=1e-5)
    assert out.alpha.sum().item() == pytest.approx(2 * math.pi * variance, rel=0.05)
