"""Gaussians that the filters leave, and pictures, which are the renderer's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config import Config
from gaussian_renderer import render
from gaussian_renderer.activated import Activated
from scene.gaussian_model import GaussianModel
from utils.media import depth_image, to_uint8
from viewer.orbit import Orbit, cameras_at
from viewer.picture import Look, filtered, picture

CAMERAS = cameras_at([Orbit.front(Config()).turned(40)], 48, 32)


def model() -> GaussianModel:
    rng = torch.Generator().manual_seed(3)
    points, colors = torch.rand(2, 40, 3, generator=rng)
    gaussians = GaussianModel.from_points(points - 0.5, colors, sh_degree=2)
    gaussians.set_raw(
        {
            "opacity": torch.randn(40, 1, generator=rng),
            "scaling": torch.randn(40, 3, generator=rng) - 2,
            "f_rest": 0.3 * torch.randn(40, 8, 3, generator=rng),
        }
    )
    return gaussians


def test_activated_gaussians_look_the_same() -> None:
    background = torch.zeros(3)
    one, other = (render(each, CAMERAS, background).rgb for each in (model(), Activated.of(model())))
    assert torch.equal(one, other)


@pytest.mark.parametrize("least", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("largest", [0.0, 0.25, 1.0])
def test_filters_leave_the_opaque_and_the_small(least: float, largest: float) -> None:
    gaussians = Activated.of(model())
    left = filtered(gaussians, Look(least_opacity=least, largest=largest))
    sizes = gaussians.scales.amax(1)
    bound = sizes.sort().values[: round(largest * 40)]
    expected = [
        k for k in range(40) if len(bound) and gaussians.opacities[k, 0] >= least and sizes[k] <= bound[-1]
    ]
    assert torch.equal(left.means, gaussians.means[expected])
    assert torch.equal(left.shs, gaussians.shs[expected])


def test_pictures_are_the_renderers() -> None:
    gaussians, background = Activated.of(model()), (0.2, 0.4, 0.6)
    out = render(gaussians, CAMERAS, torch.tensor(background), sh_degree=1, scale_modifier=0.5)
    expected = {
        "colour": out.rgb[0],
        "alpha": out.alpha[0],
        "depth": depth_image(out.depth, out.alpha)[0],
    }
    for kind, image in expected.items():
        found = picture(gaussians, CAMERAS, Look(kind, background, sh_degree=1, size=0.5))
        assert np.array_equal(found, to_uint8(image)), kind


def test_nothing_left_is_the_background() -> None:
    nothing = filtered(Activated.of(model()), Look(largest=0.0))
    found = picture(nothing, CAMERAS, Look(background=(1.0, 0.0, 0.0)))
    assert found.shape == (32, 48, 3)
    assert (found == (255, 0, 0)).all()
