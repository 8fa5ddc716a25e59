"""Single-view classes: their arguments, units and returns, and that they are the batched call."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import COUNTS, GaussianRasterizationSettings, GaussianRasterizer, rasterize


def _settings(scene: Any, off_centre: float = 0.0, **more: Any) -> GaussianRasterizationSettings:
    """The scene's first camera, with a projection as 3D Gaussian Splatting builds it, row vectors and z in 0 .. 1."""
    width, height = scene.cameras["width"], scene.cameras["height"]
    tanfovx, tanfovy = (size / (2 * f.item()) for size, f in zip((width, height), scene.cameras["focals"][0]))
    near, far = 0.01, 100.0
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[1, 1] = 1 / tanfovx, 1 / tanfovy
    projection[0, 2] = off_centre
    projection[2, 2], projection[2, 3] = far / (far - near), -far * near / (far - near)
    projection[3, 2] = 1
    view = scene.cameras["viewmats"][0].T
    return GaussianRasterizationSettings(
        image_height=height,
        image_width=width,
        tanfovx=tanfovx,
        tanfovy=tanfovy,
        bg=scene.cameras["background"][0],
        scale_modifier=1.0,
        viewmatrix=view,
        projmatrix=view @ projection.T,
        sh_degree=scene.cameras["sh_degree"],
        campos=torch.linalg.inv(view)[3, :3],
        prefiltered=False,
        **more,
    )


def _gaussians(scene: Any) -> dict[str, Tensor]:
    names = {"means": "means3D", "colors": "colors_precomp", "covariances": "cov3D_precomp"}
    return {names.get(name, name): tensor for name, tensor in scene.gaussians.items()}


@pytest.mark.parametrize("off_centre", [0.0, 0.3])
def test_equals_the_batched_call(off_centre: float, tools: Any) -> None:
    """The pixel of ndc is ((ndc + 1) size - 1) / 2; means2D's gradient is in NDC, its third component zero."""
    scene = tools.scene(150, width=70, height=50, degree=2)
    width, height = 70, 50
    leaves = {name: t.requires_grad_() for name, t in _gaussians(scene).items()}
    means2d = torch.zeros(150, 3, requires_grad=True)
    color, radii, depth_alpha = GaussianRasterizer(_settings(scene, off_centre))(means2D=means2d, **leaves)
    assert color.shape == (3, height, width)
    assert radii.shape == (150,)
    assert depth_alpha.shape == (2, height, width)
    weights = torch.randn(5, height, width, generator=torch.Generator().manual_seed(0))
    (torch.cat([color, depth_alpha]) * weights).sum().backward()
    single = {name: leaf.grad.clone() for name, leaf in leaves.items()}

    scene.cameras["principals"] = torch.tensor([[((off_centre + 1) * width - 1) / 2, (height - 1) / 2]])
    for leaf in leaves.values():
        leaf.grad = None
    out = rasterize(**scene.gaussians, **scene.cameras)
    for found, wanted in ((color, out.rgb), (depth_alpha[0], out.depth), (depth_alpha[1], 1 - out.alpha)):
        # The principal point differs by rounding: a pixel on a threshold may be taken by one and not by the other.
        error = (found - wanted.view_as(found)).abs()
        assert error.max() < 2e-2
        assert (error > 1e-4).double().mean() < 1e-3
    assert torch.equal(out.radii[0], radii)
    images = torch.cat([out.rgb[0], out.depth[0], 1 - out.alpha[0]])
    (images * weights).sum().backward()
    for name, leaf in leaves.items():
        assert torch.allclose(leaf.grad, single[name], rtol=1e-3, atol=1e-3 * leaf.grad.abs().max()), name
    in_ndc = out.means2d.grad[0] * torch.tensor([width / 2, height / 2])
    assert torch.allclose(means2d.grad[:, :2], in_ndc, rtol=1e-3, atol=1e-3 * in_ndc.abs().max())
    assert means2d.grad[:, 2].abs().sum() == 0


def test_means2d_may_be_a_retained_result(tools: Any) -> None:
    """Training code adds 0 to zeros and calls retain_grad."""
    scene = tools.scene(40)
    leaves = {name: t.requires_grad_() for name, t in _gaussians(scene).items()}
    screen = torch.zeros_like(leaves["means3D"], requires_grad=True) + 0
    screen.retain_grad()
    GaussianRasterizer(_settings(scene))(means2D=screen, **leaves)[0].sum().backward()
    assert screen.grad.shape == (40, 3)
    assert screen.grad[:, :2].abs().sum() > 0


@pytest.mark.parametrize("given", ["none", "both"])
@pytest.mark.parametrize("what", ["colour", "shape"])
def test_exactly_one_of_each_alternative(given: str, what: str, tools: Any) -> None:
    scene = tools.scene(5)
    arguments = _gaussians(scene)
    rasterizer = GaussianRasterizer(raster_settings=_settings(scene))
    if what == "colour":
        arguments |= {"shs": None} if given == "none" else {"colors_precomp": torch.zeros(5, 3)}
    else:
        arguments |= {"scales": None} if given == "none" else {"cov3D_precomp": torch.zeros(5, 6)}
    with pytest.raises(ValueError, match="exactly one"):
        rasterizer(means2D=torch.zeros(5, 3), **arguments)


def test_precomputed_colours_and_covariances(tools: Any) -> None:
    scene = tools.scene(60, degree=None, covariances=True)
    color, _, _ = GaussianRasterizer(_settings(scene))(means2D=torch.zeros(60, 3), **_gaussians(scene))
    scene.cameras["principals"] = torch.tensor([[47 / 2, 39 / 2]])
    assert torch.allclose(tools.render(scene, "cpu").output.rgb[0], color, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_mark_visible_is_the_near_plane(dtype: torch.dtype, tools: Any) -> None:
    """Positions may be of any number type, and lie to the right and left of the image as well."""
    scene = tools.scene(200)
    rasterizer = GaussianRasterizer(_settings(scene))
    positions = (9 * scene.gaussians["means"]).to(dtype).requires_grad_(dtype.is_floating_point)
    viewmat = scene.cameras["viewmats"][0].double()
    depths = (positions.double() @ viewmat[:3, :3].T + viewmat[:3, 3])[:, 2]
    visible = rasterizer.markVisible(positions)
    assert torch.equal(visible, depths > 0.2)
    assert 0 < visible.sum() < 200


def test_mark_visible_agrees_with_what_is_drawn(tools: Any) -> None:
    """Gaussians that have a radius are marked; one that is marked but has none lies outside the image or is faint."""
    scene = tools.scene(400)
    scene.gaussians["means"] *= 3
    scene.gaussians["means"][7] = math.nan
    rasterizer = GaussianRasterizer(_settings(scene))
    visible = rasterizer.markVisible(scene.gaussians["means"])
    counts = rasterize(**scene.gaussians, **scene.cameras).counts[0]
    drawn = rasterizer(means2D=torch.zeros(400, 3), **_gaussians(scene))[1] > 0
    assert not (drawn & ~visible).any()
    assert (~visible).sum() == counts[COUNTS.index("behind")] + 1


def test_mark_visible_refuses_other_shapes(tools: Any) -> None:
    rasterizer = GaussianRasterizer(_settings(tools.scene(1)))
    with pytest.raises(ValueError, match=r"positions has shape \[3\], it must be \[N, 3\]"):
        rasterizer.markVisible(torch.zeros(3))


def test_settings_are_a_named_tuple(tools: Any) -> None:
    """Code for the original copies them with _replace and reads _fields."""
    settings = _settings(tools.scene(1))
    darker = settings._replace(bg=torch.zeros(3))
    assert isinstance(darker, GaussianRasterizationSettings)
    assert darker.viewmatrix is settings.viewmatrix
    assert settings._fields[:2] == ("image_height", "image_width")


def test_antialiasing_reaches_the_rasterizer(tools: Any) -> None:
    scene = tools.scene(60, size=0.01)
    plain = GaussianRasterizer(_settings(scene))(means2D=torch.zeros(60, 3), **_gaussians(scene))
    filtered = GaussianRasterizer(_settings(scene, antialiasing=True))(
        means2D=torch.zeros(60, 3), **_gaussians(scene)
    )
    assert filtered[2][1].mean() > plain[2][1].mean()
