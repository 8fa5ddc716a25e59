from __future__ import annotations

import math

import pytest
import torch

from config.schema import OptimizationParams
from gaussian_renderer import render
from scene.cameras import orbit
from scene.densify import relocate
from scene.gaussian_model import GaussianModel
from scene.optimizer import GaussianOptimizer
from scene.statistics import DensificationStats
from utils.spherical_harmonics import rgb_to_dc

WHITE = torch.ones(3)


def red_blob(x: float, y: float, z: float) -> GaussianModel:
    point, red = torch.tensor([[x, y, z]]), torch.tensor([[1.0, 0.0, 0.0]])
    model = GaussianModel.from_points(point, red, 0, initial_opacity=0.95)
    with torch.no_grad():
        model._scales.fill_(math.log(0.05))
    return model


def cloud(count: int = 300, degree: int = 2) -> GaussianModel:
    rng = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=rng) - 0.5
    model = GaussianModel.from_points(
        points, torch.rand(count, 3, generator=rng), degree, initial_opacity=0.4
    )
    with torch.no_grad():
        model._features_rest.normal_(std=0.2, generator=rng)
    return model


def test_a_blob_appears_where_its_camera_projects_it() -> None:
    cameras = orbit([0.0, 90.0, 180.0], 90.0, 3.0, 0.6, 65, 49)
    model = red_blob(0.0, 0.3, 0.2)
    out = render(model, cameras, torch.zeros(3))
    assert out.rgb.shape == (3, 3, 49, 65)
    assert out.depth.shape == out.alpha.shape == (3, 1, 49, 65)
    assert out.radii.shape == (3, 1)
    point = model.means.detach()
    for view in range(3):
        camera = point @ cameras.viewmats[view, :3, :3].T + cameras.viewmats[view, :3, 3]
        pixel = (cameras.focals[view] * camera[0, :2] / camera[0, 2] + cameras.principals[view]).round().int()
        red = out.rgb[view, 0]
        assert divmod(int(red.argmax()), 65) == (pixel[1], pixel[0])
        assert out.rgb[view, 1:].max() < 0.02
        depth = out.depth[view, 0, pixel[1], pixel[0]] / out.alpha[view, 0, pixel[1], pixel[0]]
        assert depth.item() == pytest.approx(camera[0, 2].item(), rel=1e-4)
    # From the front +y is on the right, from behind on the left.
    assert int(out.rgb[0, 0].sum(dim=0).argmax()) > 32 > int(out.rgb[2, 0].sum(dim=0).argmax())


def test_a_batch_of_views_is_its_views() -> None:
    model, cameras = cloud(), orbit([0.0, 50.0, -120.0], [60.0, 90.0, 100.0], 3.0, 0.6, 40, 32)
    backgrounds = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    batch = render(model, cameras, backgrounds)
    for view in range(3):
        single = render(model, cameras[view : view + 1], backgrounds[view])
        torch.testing.assert_close(batch.rgb[view], single.rgb[0])
        assert torch.equal(batch.radii[view], single.radii[0])


def test_the_background_shows_through_what_alpha_leaves() -> None:
    model, cameras = cloud(), orbit([0.0, 50.0], 80.0, 3.0, 0.6, 40, 32)
    on_black, on_white = render(model, cameras, 0 * WHITE), render(model, cameras, WHITE)
    torch.testing.assert_close(on_white.rgb - on_black.rgb, (1 - on_black.alpha).expand(-1, 3, -1, -1))


def test_overrides_take_the_models_place() -> None:
    model, cameras = cloud(), orbit(30.0, 80.0, 3.0, 0.6, 40, 32)
    plain = render(model, cameras, WHITE)
    halved = render(model, cameras, WHITE, scales=model.scales * 0.5)
    torch.testing.assert_close(halved.rgb, render(model, cameras, WHITE, scale_modifier=0.5).rgb)
    assert halved.alpha.sum() < plain.alpha.sum()
    grey = render(model, cameras, WHITE, shs=torch.zeros_like(model.shs))
    torch.testing.assert_close(grey.rgb, (1 - 0.5 * grey.alpha).expand(-1, 3, -1, -1))
    flat = render(model, cameras, WHITE, sh_degree=0)
    assert not torch.equal(flat.rgb, plain.rgb)
    constant = torch.cat([model.shs[:, :1], torch.zeros(300, 8, 3)], dim=1)
    torch.testing.assert_close(flat.rgb, render(model, cameras, WHITE, shs=constant).rgb)


def test_gradients_reach_every_parameter_and_each_views_means() -> None:
    model, cameras = cloud(), orbit([0.0, 90.0], 80.0, 3.0, 0.6, 40, 32)
    with torch.no_grad():
        model._scales += torch.tensor([0.5, 0.0, -0.5])  # turning a round one changes nothing
    out = render(model, cameras, WHITE)
    (out.rgb.square().mean() + out.depth.mean() + out.alpha.mean()).backward()
    for name, parameter in model.raw().items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert out.means2d.grad is not None
    assert out.means2d.grad.shape == (2, 300, 2)
    assert bool((out.means2d.grad.abs().sum(dim=(1, 2)) > 0).all())


def test_a_gaussian_seen_in_the_second_view_only_is_counted() -> None:
    # Behind the first camera, in front of the second.
    model = red_blob(3.5, 0.0, 0.0)
    cameras = orbit([0.0, 180.0], 90.0, 3.0, 0.6, 32, 32)
    out = render(model, cameras, torch.zeros(3))
    assert (out.radii > 0).tolist() == [[False], [True]]
    weights = torch.linspace(0, 1, 32)
    (out.rgb[:, 0] * weights).sum().backward()
    stats = DensificationStats.zeros(1)
    assert out.means2d.grad is not None
    stats.add(DensificationStats.of_views(out.means2d.grad, out.radii, 32, 32))
    assert stats.views.tolist() == [1.0]
    assert stats.mean_gradient().item() == pytest.approx((out.means2d.grad[1, 0] * 16).norm().item())
    assert stats.mean_gradient().item() > 0
    assert stats.max_radii.item() == out.radii[1, 0].item()


def test_relocation_keeps_the_picture_approximately() -> None:
    rng = torch.Generator().manual_seed(0)
    model = cloud(400, degree=0)
    with torch.no_grad():
        model._opacities[200:] = torch.logit(torch.tensor(0.002))
        model._features_dc[:, 0] = rgb_to_dc(torch.rand(400, 3, generator=rng))
    cameras = orbit([0.0, 90.0, 200.0], 80.0, 3.0, 0.6, 64, 64)
    before = render(model, cameras, WHITE).rgb.detach()
    optimizer = GaussianOptimizer(model, OptimizationParams(), 3.5)
    assert relocate(optimizer, rng) == 200
    error = (render(model, cameras, WHITE).rgb - before).square().mean()
    contrast = (WHITE[0] - before).square().mean()
    assert error < 0.005 * contrast


def test_wrong_arguments_are_named() -> None:
    model, cameras = cloud(), orbit([0.0, 90.0], 80.0, 3.0, 0.6, 40, 32)
    with pytest.raises(ValueError, match="background has shape"):
        render(model, cameras, torch.ones(3, 3))
    with pytest.raises(ValueError, match="sh_degree is 3"):
        render(model, cameras, WHITE, sh_degree=3)
