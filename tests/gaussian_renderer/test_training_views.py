"""Views of an iteration that the guidance sees, and their picture."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config
from gaussian_renderer import RenderOutput
from gaussian_renderer.training_views import TrainingViews, training_views
from scene.cameras import Cameras, orbit
from scene.gaussian_model import GaussianModel
from tests.changed import changed
from training.training_picture import training_picture
from utils.media import LABEL_HEIGHT, colorize
from utils.rng import Draws

SIZE = 24


def configured(**keys: object) -> Config:
    """A small configuration without any augmentation but those of `keys`."""
    plain = {"as_latent_ratio": 0.0, "flip_aug_ratio": 0.0, "bg_aug_ratio": 0.0, "scale_aug_ratio": 0.0}
    return changed(Config(), **{**plain, "sh_deg_aug_ratio": 0.0, "image_w": SIZE, "image_h": SIZE, **keys})


def gaussians() -> GaussianModel:
    """A lopsided cloud: its mirror image is another one."""
    points, colors = torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(0))
    return GaussianModel.from_points(points * torch.tensor([1.0, 2.0, 0.5]), colors, 0)


def cameras(ssaa: int = 1) -> Cameras:
    return orbit([0.0, 40.0, 100.0], 70.0, 4.0, 0.8, SIZE * ssaa, SIZE * ssaa)


def seen(step: int = 1, **changes: object) -> TrainingViews:
    shown = cameras(int(changes.get("SSAA", 1)))  # type: ignore[call-overload]
    return training_views(gaussians(), shown, configured(**changes), step, range(3), Draws(0))


def test_without_augmentation_the_guidance_sees_the_render() -> None:
    views = seen()
    assert torch.equal(views.images, views.out.rgb)
    assert (views.geometry, views.mirrored) == (False, False)


def test_flips_mirror_what_the_guidance_sees_and_nothing_else() -> None:
    # Neither does the draw for it shift any other.
    others = {"bg_aug_ratio": 1.0, "scale_aug_ratio": 1.0}
    plain, mirrored = seen(flip_aug_ratio=0.0, **others), seen(flip_aug_ratio=1.0, **others)
    assert mirrored.mirrored
    assert torch.equal(mirrored.images, plain.images.flip(-1))
    assert not torch.equal(mirrored.images, plain.images)
    assert torch.equal(mirrored.out.rgb, plain.out.rgb)


@pytest.mark.parametrize("asked", [{"as_latent_ratio": 1.0}, {"geo_iter": 9}])
def test_the_disparity_is_not_shown_where_the_geometry_is_kept(asked: dict[str, object]) -> None:
    assert seen(**asked).geometry
    assert seen(**asked, keep="color").geometry
    kept = seen(**asked, keep="geometry")
    assert not kept.geometry
    assert torch.equal(kept.images, kept.out.rgb)


def test_gradients_come_back_through_a_flip() -> None:
    def gradient(ratio: float) -> Tensor:
        views = seen(flip_aug_ratio=ratio)
        weights = torch.rand(views.images.shape, generator=torch.Generator().manual_seed(3))
        (views.images * (weights.flip(-1) if views.mirrored else weights)).sum().backward()
        assert views.out.means2d.grad is not None
        return views.out.means2d.grad

    torch.testing.assert_close(gradient(1.0), gradient(0.0))


@pytest.mark.parametrize(
    ("key", "attribute"), [("flip_aug_ratio", "mirrored"), ("as_latent_ratio", "geometry")]
)
def test_both_coins_fall_as_often_as_stated(key: str, attribute: str) -> None:
    config, few, count = configured(**{key: 0.3}), cameras()[:1], 400
    heads = sum(
        getattr(training_views(gaussians(), few, config, step, range(1), Draws(1)), attribute)
        for step in range(9, 9 + count)
    )
    assert abs(heads / count - 0.3) < 4 * math.sqrt(0.3 * 0.7 / count)


def test_before_geo_iter_the_guidance_sees_disparity_only() -> None:
    for step, geometry in ((1, True), (4, True), (5, False), (6, False)):
        views = seen(step, geo_iter=5)
        assert views.geometry is geometry
        shown = views.disparity.expand(-1, 3, -1, -1) if geometry else views.out.rgb
        assert torch.equal(views.images, shown)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_colours_are_there_beside_the_disparity(ratio: float) -> None:
    """They are what the guidance would have seen of them: averaged, mirrored; and it is the images, where it sees them."""
    changes: dict[str, object] = {"SSAA": 2, "flip_aug_ratio": ratio}
    shown, hidden = seen(**changes), seen(**changes, as_latent_ratio=1.0)
    assert shown.colors is shown.images
    assert torch.equal(hidden.colors, shown.images)
    assert not torch.equal(hidden.images, shown.images)


def test_supersampled_renders_are_averaged() -> None:
    views = seen(SSAA=2)
    assert views.out.rgb.shape[-1] == 2 * SIZE
    torch.testing.assert_close(views.images, F.avg_pool2d(views.out.rgb, 2))


def pictured(mirrored: bool, geometry: bool = False) -> tuple[Tensor, TrainingViews]:
    """The picture of three views that the prior predicts as they are, and whose gradient is the green channel."""
    generator = torch.Generator().manual_seed(4)
    size, views = 32, orbit([0.0, 90.0, 180.0], 90.0, 3.0, 0.6, 32, 32)
    rgb, empty = torch.rand(3, 3, size, size, generator=generator), torch.zeros(3, 0)
    depth, alpha, disparity = torch.rand(3, 3, 1, size, size, generator=generator)
    images = disparity.expand(-1, 3, -1, -1) if geometry else rgb
    images = images.flip(-1) if mirrored else images
    shown = TrainingViews(
        views,
        RenderOutput(rgb, depth, alpha, empty, empty, empty),
        disparity,
        1,
        geometry=geometry,
        mirrored=mirrored,
        backgrounds=torch.zeros(3, 3),
    )
    gradient = torch.cat([-images[:, 1:2], images[:, 1:2]], dim=1)
    return training_picture(shown, {"as seen": lambda: images}, gradient, decode=lambda z: z).sheet(), shown


def rows_of(sheet: Tensor, labelled: tuple[bool, ...], size: int = 32, gap: int = 4) -> list[Tensor]:
    """The first tile of each row of a sheet."""
    found, top = [], 0
    for labels in labelled:
        top += LABEL_HEIGHT + gap + (LABEL_HEIGHT if labels else 0)
        found.append(sheet[:, top : top + size, :size])
        top += size + gap
    assert top == sheet.shape[1]
    return found


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("geometry", [False, True])
def test_rows_of_the_picture_agree_with_one_another(mirrored: bool, geometry: bool) -> None:
    sheet, views = pictured(mirrored, geometry)
    rows = rows_of(sheet, (True, False, False, False, True))
    render, disparity, alpha, predicted, gradient = rows

    def close(tile: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(tile, expected.expand(3, -1, -1), rtol=0, atol=0.6 / 255)

    def as_seen(image: Tensor) -> Tensor:
        return image.flip(-1) if mirrored else image

    close(render, as_seen(views.out.rgb[0]))
    close(disparity, as_seen(views.disparity[0]))
    close(alpha, as_seen(views.out.alpha[0]))
    close(predicted, disparity if geometry else render)
    magnitude = views.images[0, 1:2]
    close(gradient, colorize(magnitude / magnitude.max()))


def test_a_prediction_that_overflows_and_a_gradient_of_nothing_still_make_a_picture() -> None:
    _, views = pictured(False)
    broken = torch.full((3, 3, 8, 8), math.nan)
    sheet = training_picture(
        views, {"broken": lambda: broken}, torch.zeros(3, 4, 2, 2), decode=lambda z: z
    ).sheet()
    rows = rows_of(sheet, (True, False, False, False, True))
    assert not rows[3].any()
    assert not rows[4].any()


def test_large_views_are_shown_smaller() -> None:
    big = orbit([0.0], 90.0, 3.0, 0.6, 600, 300)
    rgb, plane, empty = torch.rand(1, 3, 300, 600), torch.rand(1, 1, 300, 600), torch.zeros(1, 0)
    views = TrainingViews(
        big,
        RenderOutput(rgb, plane, plane, empty, empty, empty),
        plane,
        1,
        geometry=False,
        mirrored=False,
        backgrounds=torch.zeros(1, 3),
    )
    sheet = training_picture(views, {}, torch.rand(1, 4, 37, 75), decode=lambda z: z).sheet()
    assert sheet.shape[1] < 4 * (128 + 50)
