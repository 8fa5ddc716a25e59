"""Brightness-Equalised Generation, and colours kept above black."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from config.schema import OptimizationParams
from gaussian_renderer import render
from scene.brightness import brightness, equalize_brightness, equalizes, lift_colors
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from scene.optimizer import MOMENTS, GaussianOptimizer

PARAMS = OptimizationParams(
    start_reset_iter=10, end_reset_iter=20, thresh=0.85, lgt_thresh=0.9, reset_rate=0.8
)
COLOURS = ("f_dc", "f_rest")


def covered(rgb: Tensor) -> Tensor:
    """Alpha of views that the asset fills."""
    return torch.ones_like(rgb[:, :1])


def trained(degree: int = 1) -> GaussianOptimizer:
    """An optimizer after one step on random gradients."""
    rng = torch.Generator().manual_seed(0)
    model = GaussianModel.from_points(*torch.rand(2, 9, 3, generator=rng), degree)
    optimizer = GaussianOptimizer(model, PARAMS, extent=1.0)
    for parameter in model.raw().values():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    optimizer.step(1)
    return optimizer


def test_brightness_is_a_quantile_over_lit_pixels() -> None:
    rgb = torch.rand(5, 3, 11, 7, generator=torch.Generator().manual_seed(1))
    rgb[:, :, :4] = 0
    of_views = []
    for view in rgb.numpy().astype(np.float64):
        pixels = view.mean(axis=0)
        of_views.append(np.quantile(pixels[pixels > 0], 0.85))
    assert brightness(rgb, covered(rgb), 0.85).tolist() == pytest.approx(of_views, abs=1e-6)


def test_dark_pixels_do_not_count_and_a_dark_view_is_dark() -> None:
    lit = torch.full((1, 3, 4, 4), 0.7)
    mostly_dark = lit * (torch.arange(16).reshape(4, 4) == 3)
    assert float(brightness(mostly_dark, covered(lit), 0.5)) == pytest.approx(0.7)
    views = torch.cat([lit, torch.zeros(2, 3, 4, 4)])
    assert brightness(views, covered(views), 0.85).tolist() == pytest.approx([0.7, 0, 0])


def test_a_background_of_any_colour_does_not_count() -> None:
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., 1:3, 1:3] = 1
    of_background = [
        float(brightness(alpha * 0.6 + (1 - alpha) * level * torch.ones(1, 3, 4, 4), alpha, 0.85))
        for level in (0.0, 0.3, 1.0)
    ]
    assert of_background == pytest.approx([0.6, 0.6, 0.6])


@pytest.mark.parametrize(
    ("levels", "dims"),
    [([0.91], True), ([0.89], False), ([0.8, 0.8, 0.8, 0.8, 1.5], True), ([0.8, 0.8, 0.8, 0.8, 1.0], False)],
)
def test_colours_are_dimmed_where_the_views_quantile_is_above_the_threshold(
    levels: list[float], dims: bool
) -> None:
    optimizer = trained()
    before = {name: parameter.detach().clone() for name, parameter in optimizer.model.raw().items()}
    assert bool(equalize_brightness(optimizer, torch.tensor(levels), PARAMS)) is dims
    for name, parameter in optimizer.model.raw().items():
        touched = dims and name in COLOURS
        torch.testing.assert_close(parameter.detach(), before[name] * (0.8 if touched else 1.0))
        for key in MOMENTS:
            assert bool(optimizer.adam.state[parameter][key].any()) is not touched, (name, key)


def test_it_is_due_between_the_two_iterations() -> None:
    assert [step for step in range(30) if equalizes(PARAMS, step)] == list(range(11, 20))
    assert not any(equalizes(PARAMS.model_copy(update={"keep": "color"}), step) for step in range(30))


def test_training_goes_on_after_dimming() -> None:
    optimizer = trained(degree=0)
    assert equalize_brightness(optimizer, torch.ones(1), PARAMS)
    before = optimizer.model.raw()["f_dc"].detach().clone()
    for parameter in optimizer.model.raw().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(16)
    assert bool((optimizer.model.raw()["f_dc"] < before).all())


def test_lifted_colours_look_the_same_and_can_be_taught() -> None:
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    model = GaussianModel.from_points(points, torch.tensor([0.7, -0.05, -0.2]).expand(50, 3), 0)
    camera = orbit([30.0], 75.0, 4.0, 0.5, 24, 24)

    def taught() -> tuple[Tensor, list[bool]]:
        """The picture, and the channels that a brighter one would reach."""
        model._features_dc.grad = None
        rgb = render(model, camera, torch.zeros(3)).rgb
        rgb.sum().backward()
        assert model._features_dc.grad is not None
        return rgb.detach(), (model._features_dc.grad != 0).any(dim=0)[0].tolist()

    red = model._features_dc.detach()[:, 0, 0].clone()
    before, reached = taught()
    assert reached == [True, False, False]
    lift_colors(GaussianOptimizer(model, PARAMS, extent=1.0), 0.002)
    after, reached = taught()
    assert reached == [True, True, True]
    assert float((after - before).abs().max()) <= 0.002
    assert torch.equal(model._features_dc.detach()[:, 0, 0], red)
