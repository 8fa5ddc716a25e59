from __future__ import annotations

import pytest
import torch

from gaussian_renderer.showcase import VIEWS_AT_ONCE, show, show_pixels, solid
from scene.cameras import orbit
from scene.gaussian_model import GaussianModel
from utils.media import to_pixels


def model(opacities: list[float]) -> GaussianModel:
    points, colors = torch.rand(2, len(opacities), 3, generator=torch.Generator().manual_seed(0))
    made = GaussianModel.from_points(points, colors, 1)
    made.set_raw({"opacity": torch.logit(torch.tensor(opacities))[:, None]})
    return made


def test_a_faint_start_is_drawn_opaque_and_smaller() -> None:
    start = model([0.1, 0.05, 0.1])
    shown = solid(start)
    torch.testing.assert_close(shown.opacities, torch.tensor([[1.0], [0.5], [1.0]]))
    torch.testing.assert_close(shown.scales, start.scales.detach() * 2 / 3)
    assert torch.equal(shown.means, start.means)
    assert torch.equal(shown.shs, start.shs)
    assert shown.sh_degree == 1


def test_a_finished_asset_is_drawn_as_it_is() -> None:
    asset = model([0.999, 0.3, 0.01])
    shown = solid(asset)
    torch.testing.assert_close(shown.opacities, asset.opacities.detach(), rtol=2e-3, atol=0)
    torch.testing.assert_close(shown.scales, asset.scales.detach(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("opacity", [0.9, 0.05], ids=["solid", "faint"])
@pytest.mark.parametrize("white", [False, True])
def test_pixels_on_the_device_are_those_of_the_images(opacity: float, white: bool) -> None:
    toy = model([opacity] * 200)
    # More than are rendered at once, so that all share one scale of depth.
    cameras = orbit(torch.arange(0.0, 360.0, 360 / (2 * VIEWS_AT_ONCE + 3)).tolist(), 70.0, 4.0, 0.5, 48, 32)
    images = show(toy, cameras, white=white, ssaa=2, antialiasing=True)
    pixels = show_pixels(toy, cameras, white=white, ssaa=2, antialiasing=True)
    for floats, levels in zip(images, pixels):
        assert floats.shape == (len(cameras), 3, 16, 24)
        assert torch.equal(levels.on_host(), to_pixels(floats).on_host())
