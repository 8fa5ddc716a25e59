"""Scenes at the borders of what can be drawn, on both backends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diff_gaussian_rasterization import COUNTS, rasterize

BACKENDS = ["cpu", "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gaussian_at_all(backend: str, tools: Any) -> None:
    scene = tools.scene(0, views=2, width=70, height=30)
    run = tools.render(scene, backend)
    expected = scene.cameras["background"][:, :, None, None].expand(2, 3, 30, 70)
    assert torch.equal(run.output.rgb, expected)
    assert run.output.alpha.abs().sum() == 0
    assert run.output.radii.shape == (2, 0)
    assert run.gradients["means"].shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("why", ["behind", "beside", "degenerate", "faint", "too near"])
def test_all_culled(backend: str, why: str, tools: Any) -> None:
    scene = tools.scene(20, covariances=why == "degenerate")
    scene.cameras["viewmats"] = torch.eye(4)[None]
    scene.gaussians["opacities"][:] = 0.5
    if why == "degenerate":
        scene.gaussians["means"][:, 2] = 3
        scene.gaussians["covariances"][:] = torch.tensor([-1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    elif why == "faint":
        scene.gaussians["means"][:, 2] = 3
        scene.gaussians["opacities"][:] = 0.9 / 255
    else:
        scene.gaussians["means"][:] = torch.tensor(
            {"behind": [0.0, 0.0, -3.0], "beside": [1e4, 0.0, 3.0], "too near": [0.0, 0.0, 0.2]}[why]
        )
    run = tools.render(scene, backend)
    assert torch.equal(run.output.rgb[0, :, 0, 0], scene.cameras["background"][0])
    assert run.output.alpha.abs().sum() == 0
    assert run.output.radii.sum() == 0
    assert run.output.means2d.abs().sum() == 0
    reason = {"beside": "outside", "too near": "behind"}.get(why, why)
    assert run.output.counts.tolist() == [[20 * (name == reason) for name in COUNTS]]
    for name, gradient in run.gradients.items():
        assert name == "background" or gradient.abs().sum() == 0


BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", ["means", "scales", "rotations", "opacities", "shs", "colors", "covariances"]
)
def test_a_nonfinite_gaussian_is_left_out(backend: str, name: str, tools: Any) -> None:
    """A non-finite Gaussian changes nothing, is counted, and its own gradients are zero."""
    scene = tools.scene(
        40, degree=None if name == "colors" else 1, covariances=name == "covariances", views=2
    )
    keep = torch.ones(40, dtype=torch.bool)
    for i, bad in enumerate(BAD):
        scene.gaussians[name][7 * i].view(-1)[-1] = bad
        keep[7 * i] = False
    run = tools.render(scene, backend)
    scene.gaussians = {key: tensor[keep] for key, tensor in scene.gaussians.items()}
    clean = tools.render(scene, backend)
    assert (run.output.counts[:, COUNTS.index("nonfinite")] == len(BAD)).all()
    assert torch.equal(run.output.rgb, clean.output.rgb)
    assert run.output.radii[:, ~keep].sum() == 0
    for key, gradient in run.gradients.items():
        assert gradient.isfinite().all(), key
        if key not in ("background", "means2d"):
            assert torch.equal(gradient[keep], clean.gradients[key]), key
            assert gradient[~keep].abs().sum() == 0, key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-21, 1e25])
def test_a_rotation_without_a_direction_counts_as_nonfinite(backend: str, length: float, tools: Any) -> None:
    """Lengths are zero, or so short or long that their square is not a normal number."""
    scene = tools.scene(10)
    scene.gaussians["rotations"][3] *= length
    run = tools.render(scene, backend)
    assert (run.output.counts[:, COUNTS.index("nonfinite")] == 1).all()
    assert run.output.radii[0, 3] == 0
    assert run.gradients["rotations"].isfinite().all()


@pytest.mark.parametrize("length", [1e-18, 1e18])
def test_a_rotation_of_any_other_length_is_normalised(length: float, tools: Any) -> None:
    scene = tools.scene(60)
    scene.gaussians["rotations"] *= length
    tools.agree(tools.render(scene, "cpu"), tools.render(scene, "reference", torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-30, 1e15, 1e30])
def test_finite_but_absurd_scales_leave_finite_images(backend: str, scale: float, tools: Any) -> None:
    scene = tools.scene(30, degree=None)
    scene.gaussians["scales"][4] = scale
    run = tools.render(scene, backend)
    assert run.output.rgb.isfinite().all()
    assert all(g.isfinite().all() for g in run.gradients.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_depths_are_drawn_in_the_order_of_the_index(backend: str, pinhole: Any) -> None:
    """Fifty layers at one depth: what the first covers, the later ones cannot."""
    count = 50
    rng = torch.Generator().manual_seed(0)
    colors, opacities = torch.rand(count, 3, generator=rng), 0.1 + 0.1 * torch.rand(count, generator=rng)
    means = torch.tensor([0.0, 0.0, 5.0]).repeat(count, 1)
    for order in (torch.arange(count), torch.randperm(count, generator=rng)):
        out = rasterize(
            means,
            torch.full((count, 3), 10.0),
            torch.eye(4)[:1].repeat(count, 1),
            opacities[order],
            colors=colors[order],
            **pinhole(3, 3),
            backend=backend,
        )
        transmittance, expected = 1.0, torch.zeros(3)
        for i in order.tolist():
            if transmittance * (1 - opacities[i]) < 1e-4:
                break
            expected += transmittance * opacities[i] * colors[i]
            transmittance *= 1 - opacities[i].item()
        expected += transmittance * torch.tensor([0.1, 0.2, 0.3])
        assert torch.allclose(out.rgb[0, :, 1, 1], expected, atol=1e-4)


def test_thousands_in_one_tile_are_sorted_by_depth(tools: Any) -> None:
    scene = tools.scene(5000, width=20, height=20, degree=None, size=0.05)
    scene.gaussians["opacities"] *= 0.05
    scene.gaussians["means"][::3, :] = scene.gaussians["means"][0]  # many exact ties among them
    scene.gaussians["means"][1::7] *= 0.999
    tools.agree(tools.render(scene, "cpu"), tools.render(scene, "reference", torch.float64))


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_depths_of_any_spread_are_sorted(spread: float, pinhole: Any) -> None:
    """Shuffled layers equal the same layers in order."""
    count = 300
    rng = torch.Generator().manual_seed(1)
    depth = 2 + spread * torch.rand(count, generator=rng).square()
    means = torch.stack([torch.zeros(count), torch.zeros(count), depth], dim=1)
    scales = (depth / 2)[:, None].expand(-1, 3).contiguous()
    colors, opacities = torch.rand(count, 3, generator=rng), 0.02 + 0.03 * torch.rand(count, generator=rng)
    order = torch.sort(depth, stable=True).indices
    images = []
    for index in (torch.arange(count), order):
        arguments = (t[index] for t in (means, scales, torch.eye(4)[:1].repeat(count, 1), opacities))
        images.append(rasterize(*arguments, colors=colors[index], **pinhole(30, 30)).rgb)
    assert torch.equal(images[0], images[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_view_has_its_own_background_and_equals_the_view_alone(backend: str, tools: Any) -> None:
    scene = tools.scene(100, views=3)
    together = tools.render(scene, backend).output
    for view in range(3):
        alone = tools.scene(100, views=3)
        for name in ("viewmats", "focals", "principals", "background"):
            alone.cameras[name] = alone.cameras[name][view : view + 1]
        single = tools.render(alone, backend).output
        assert torch.equal(single.rgb[0], together.rgb[view])
        assert torch.equal(single.depth[0], together.depth[view])
        assert torch.equal(single.radii[0], together.radii[view])


def test_one_background_serves_all_views(tools: Any) -> None:
    scene = tools.scene(50, views=2)
    background = torch.tensor([0.3, 0.6, 0.9])
    scene.cameras["background"] = background
    shared = tools.render(scene, "cpu")
    scene.cameras["background"] = background.repeat(2, 1)
    own = tools.render(scene, "cpu")
    assert torch.equal(shared.output.rgb, own.output.rgb)
    assert torch.allclose(shared.gradients["background"], own.gradients["background"].sum(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_background_enters_with_the_transmittance(backend: str, tools: Any) -> None:
    scene = tools.scene(60)
    color = scene.cameras["background"][:, :, None, None]
    over = tools.render(scene, backend).output
    scene.cameras["background"] = torch.zeros(1, 3)
    black = tools.render(scene, backend).output
    assert torch.allclose(over.rgb, black.rgb + (1 - black.alpha) * color, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_of_the_gaussians_does_not_matter(backend: str, tools: Any) -> None:
    scene = tools.scene(200)
    straight = tools.render(scene, backend)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    scene.gaussians = {name: tensor[order] for name, tensor in scene.gaussians.items()}
    shuffled = tools.render(scene, backend)
    assert torch.equal(straight.output.rgb, shuffled.output.rgb)
    assert torch.allclose(
        straight.gradients["means"][order], shuffled.gradients["means"], rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shs": None}, "exactly one"),
        ({"colors": torch.zeros(5, 3)}, "exactly one"),
        ({"covariances": torch.zeros(5, 6)}, "exactly one"),
        ({"scales": None}, "exactly one"),
        ({"scales": None, "rotations": None}, "exactly one"),
        ({"rotations": torch.zeros(5, 3)}, r"rotations has shape \[5, 3\]"),
        ({"means": torch.zeros(4, 3)}, r"must be \[4"),
        ({"opacities": torch.zeros(5, 2)}, "opacities"),
        ({"sh_degree": 2}, "sh_degree 2 needs 9"),
        ({"sh_degree": 4}, "sh_degree is 4"),
        ({"width": 0}, "width is 0"),
        ({"height": 70000}, "height is 70000"),
        ({"near": 0.0}, "near is 0.0"),
        ({"viewmats": torch.eye(4)}, "viewmats"),
        ({"focals": torch.ones(2, 2)}, "focals"),
        ({"background": torch.ones(2, 3)}, "background"),
    ],
)
def test_wrong_arguments_are_named(backend: str, change: dict[str, Any], sentence: str, tools: Any) -> None:
    scene = tools.scene(5)
    with pytest.raises(ValueError, match=sentence):
        rasterize(**{**scene.gaussians, **scene.cameras, **change}, backend=backend)


def test_an_unknown_backend_is_named(tools: Any) -> None:
    scene = tools.scene(5)
    with pytest.raises(ValueError, match=r"'gpu'.*cpu, cuda, reference"):
        rasterize(**scene.gaussians, **scene.cameras, backend="gpu")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["viewmats", "focals", "principals"])
def test_a_nonfinite_camera_sees_nothing(backend: str, name: str, bad: float, tools: Any) -> None:
    """A view whose camera is non-finite is empty, and the other view is what it is without it."""
    scene = tools.scene(40, views=2)
    clean = tools.render(scene, backend).output
    scene.cameras[name][1].view(-1)[1] = bad
    run = tools.render(scene, backend)
    assert torch.equal(run.output.rgb[0], clean.rgb[0])
    assert torch.equal(run.output.rgb[1], scene.cameras["background"][1, :, None, None].expand(3, 40, 48))
    assert run.output.radii[1].sum() == 0
    assert all(g.isfinite().all() for g in run.gradients.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_covariance_that_is_none_is_left_out(backend: str, tools: Any) -> None:
    """Variances below zero in the image: the density would grow with the distance."""
    scene = tools.scene(40, degree=None, covariances=True)
    scene.gaussians["covariances"][5] *= -1e4
    run = tools.render(scene, backend)
    scene.gaussians["opacities"][5] = 0
    assert run.output.radii[0, 5] == 0
    assert torch.equal(run.output.rgb, tools.render(scene, backend).output.rgb)
    assert all(
        g[5].abs().sum() == 0 for name, g in run.gradients.items() if name not in ("means2d", "background")
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_color_that_overflows_is_left_out(backend: str, pinhole: Any, tools: Any) -> None:
    """Finite harmonics that add up to more than float32 holds, in front of an ordinary Gaussian."""
    scene = tools.scene(2, degree=3)
    scene.gaussians["means"] = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    scene.gaussians["shs"][0] = torch.finfo(torch.float32).max
    scene.cameras = pinhole(20, 20, sh_degree=3)
    run = tools.render(scene, backend)
    assert run.output.radii[0].bool().tolist() == [False, True]
    assert run.output.rgb.isfinite().all()
    assert all(g.isfinite().all() for g in run.gradients.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("depth", "drawn"), [(1e14, True), (1e16, False), (1e30, False)])
def test_what_is_too_far_for_its_gradients_is_left_out(
    backend: str, depth: float, drawn: bool, pinhole: Any, tools: Any
) -> None:
    scene = tools.scene(20)
    scene.gaussians["means"] = torch.tensor([0.0, 0.0, 3.0]).repeat(20, 1)
    scene.gaussians["opacities"][:] = 0.05
    scene.gaussians["means"][7] *= depth
    scene.cameras = pinhole(20, 20, sh_degree=1)
    run = tools.render(scene, backend)
    assert run.output.radii[0, 7].bool().item() == drawn
    assert run.output.depth.isfinite().all()
    assert all(g.isfinite().all() for g in run.gradients.values())
