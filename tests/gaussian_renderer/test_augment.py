from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from config.schema import ModelParams
from gaussian_renderer import RenderOutput
from gaussian_renderer.augment import disparity, perturb, sample_background
from scene.cameras import Cameras, orbit
from scene.gaussian_model import GaussianModel
from tests.draws import rngs


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def backgrounds(**params: object) -> Tensor:
    return sample_background(ModelParams(**params), rngs(4000))  # type: ignore[arg-type]


@pytest.mark.parametrize("white", [True, False])
def test_backgrounds_have_the_stated_shares(white: bool) -> None:
    drawn = backgrounds(bg_aug_ratio=0.6, white_background=white)
    assert drawn.shape == (4000, 3)
    assert bool(((drawn >= 0) & (drawn <= 1)).all())
    is_white, is_black = (drawn == 1).all(dim=1), (drawn == 0).all(dim=1)
    colored = ~is_white & ~is_black
    assert colored.float().mean() == pytest.approx(0.3, abs=0.03)
    assert is_white.float().mean() == pytest.approx(0.4 if white else 0.0, abs=0.03)
    assert bool((drawn[colored].std(dim=1) > 0).any())


def test_grey_backgrounds_are_grey() -> None:
    drawn = backgrounds(bg_aug_ratio=1.0, bg_gray=True)
    assert bool((drawn == drawn[:, :1]).all())
    assert len(drawn.unique()) > 1000


def test_without_augmentation_there_is_only_the_plain_colour() -> None:
    assert bool((backgrounds(bg_aug_ratio=0.0) == 0).all())
    assert bool((backgrounds(bg_aug_ratio=0.0, white_background=True) == 1).all())


def gaussians() -> GaussianModel:
    model = GaussianModel.from_points(
        torch.rand(3000, 3, generator=rng()), torch.rand(3000, 3, generator=rng(1)), 1
    )
    with torch.no_grad():
        model._features_rest.normal_(generator=rng(2))
    return model


def test_perturbation_has_the_stated_size_and_carries_gradients() -> None:
    model = gaussians()
    drawn = perturb(model, ModelParams(scale_aug_ratio=1.0, shs_aug_ratio=1.0, sh_deg_aug_ratio=0.0), rng())
    ratio = drawn.scales / model.scales
    assert ratio.min() >= 0
    assert (ratio.mean().item(), ratio.std().item()) == pytest.approx((1.0, math.sqrt(0.2) / 4), rel=0.05)
    ratio = drawn.shs / model.shs
    assert (ratio.mean().item(), ratio.std().item()) == pytest.approx((1.0, math.sqrt(0.2)), rel=0.05)
    assert drawn.sh_degree == 1
    (drawn.scales.sum() + drawn.shs.sum()).backward()
    assert model._scales.grad is not None
    assert model._features_rest.grad is not None


def test_perturbation_can_be_off() -> None:
    model = gaussians()
    none = perturb(model, ModelParams(scale_aug_ratio=0.0, shs_aug_ratio=0.0, sh_deg_aug_ratio=0.0), rng())
    assert torch.equal(none.scales, model.scales)
    assert torch.equal(none.shs, model.shs)
    flat = perturb(model, ModelParams(sh_deg_aug_ratio=1.0), rng())
    assert flat.sh_degree == 0
    active = perturb(model, ModelParams(sh_deg_aug_ratio=0.0), rng(), sh_degree=0)
    assert active.sh_degree == 0


def picture(depth: Tensor, alpha: Tensor) -> tuple[RenderOutput, Cameras]:
    views, _, height, width = depth.shape
    cameras = orbit(torch.zeros(views), 90.0, 3.0, 0.6, width, height)
    empty = torch.zeros(views, 0)
    return RenderOutput(torch.zeros(views, 3, height, width), depth, alpha, empty, empty, empty), cameras


def test_disparity_is_one_at_the_nearest_and_zero_at_the_farthest_and_behind() -> None:
    depth = torch.tensor([[2.0, 2.5, 4.0, 0.0]]).reshape(1, 1, 1, 4)
    alpha = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).reshape(1, 1, 1, 4)
    result = disparity(*picture(depth, alpha)).flatten()
    expected = (1 / 2.5 - 1 / 4.0) / (1 / 2.0 - 1 / 4.0)
    torch.testing.assert_close(result, torch.tensor([1.0, expected, 0.0, 0.0]), atol=1e-4, rtol=1e-4)


def test_each_view_is_normalised_by_itself() -> None:
    depth = torch.rand(3, 1, 6, 5, generator=rng()) + torch.tensor([1.0, 5.0, 20.0]).reshape(3, 1, 1, 1)
    result = disparity(*picture(depth, torch.ones(3, 1, 6, 5)))
    torch.testing.assert_close(result.amax(dim=(1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(result.amin(dim=(1, 2, 3)), torch.zeros(3))
    assert torch.equal(result.flatten(1).argmax(dim=1), depth.flatten(1).argmin(dim=1))


def test_disparity_of_empty_and_of_half_transparent_views_is_finite() -> None:
    for level in (0.0, 0.5):
        depth = (3.0 * level * torch.ones(2, 1, 4, 4)).requires_grad_()
        alpha = torch.full((2, 1, 4, 4), level, requires_grad=True)
        result = disparity(*picture(depth, alpha))
        assert bool(((result >= 0) & (result <= 1)).all())
        result.sum().backward()
        assert depth.grad is not None
        assert bool(torch.isfinite(depth.grad).all())


def test_disparity_does_not_depend_on_the_field_of_view() -> None:
    depth = torch.rand(1, 1, 6, 5, generator=rng()) + 2.0
    render, cameras = picture(depth, torch.ones(1, 1, 6, 5))
    wide = orbit(0.0, 90.0, 3.0, 1.2, 5, 6)
    torch.testing.assert_close(disparity(render, cameras), disparity(render, wide), atol=1e-4, rtol=1e-4)
