from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from config.schema import GenerateCamParams, OptimizationParams
from scene.cameras import (
    Cameras,
    ViewRange,
    in_one_copy,
    orbit,
    relax,
    sample,
    six_views,
    turntable,
    view_range_at,
    wrap_degrees,
)


def project(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates [V, P, 2] and depths [V, P] by the class's own conventions."""
    camera = points @ cameras.viewmats[:, :3, :3].transpose(1, 2) + cameras.viewmats[:, None, :3, 3]
    pixels = cameras.focals[:, None] * camera[..., :2] / camera[..., 2:] + cameras.principals[:, None]
    return pixels, camera[..., 2]


def opengl_pixels(
    eye: np.ndarray, target: np.ndarray, fovy: float, width: int, height: int, points: np.ndarray
) -> np.ndarray:
    """Pixel coordinates and depths by OpenGL's look-at and perspective matrices (camera looks along -z, y up)."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    camera = (points - eye) @ np.stack([right, up, back], axis=1)
    cotangent = 1.0 / math.tan(fovy / 2.0)
    ndc_x = camera[:, 0] * cotangent * height / width / -camera[:, 2]
    ndc_y = camera[:, 1] * cotangent / -camera[:, 2]
    return np.stack([((ndc_x + 1) * width - 1) / 2, ((-ndc_y + 1) * height - 1) / 2], axis=1)


@given(
    st.floats(-180, 179.9),
    st.floats(1, 179),
    st.floats(1.5, 8),
    st.floats(0.2, 1.5),
    st.integers(0, 2**31 - 1),
)
def test_projection_agrees_with_opengl_matrices(
    azimuth: float, polar: float, radius: float, fovy: float, seed: int
) -> None:
    points = torch.rand(10, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    cameras = orbit(azimuth, polar, radius, fovy, 40, 30)
    t, p = math.radians(polar), math.radians(azimuth)
    eye = radius * np.array([math.sin(t) * math.cos(p), math.sin(t) * math.sin(p), math.cos(t)])
    expected = opengl_pixels(eye, np.zeros(3), fovy, 40, 30, points.numpy())
    pixels, _ = project(cameras, points.float())
    np.testing.assert_allclose(pixels[0].numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(cameras.positions[0].numpy(), eye, atol=1e-5)


def test_the_target_lies_at_the_principal_point_at_the_radius() -> None:
    azimuth = torch.linspace(-180, 150, 12)
    cameras = orbit(azimuth, 70.0, 3.0, 0.6, 101, 64)
    pixels, depth = project(cameras, torch.zeros(1, 3))
    torch.testing.assert_close(pixels[:, 0], torch.tensor([[50.0, 31.5]]).expand(12, 2))
    torch.testing.assert_close(depth[:, 0], torch.full((12,), 3.0))
    torch.testing.assert_close(torch.linalg.det(cameras.viewmats[:, :3, :3]), torch.ones(12))


def test_the_front_camera_stands_on_x_with_y_to_the_right_and_z_above() -> None:
    cameras = orbit(0.0, 90.0, 4.0, 0.6, 64, 64)
    torch.testing.assert_close(cameras.positions[0], torch.tensor([4.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    pixels, _ = project(cameras, torch.tensor([[0.0, 0, 0], [0.0, 0.1, 0], [0.0, 0, 0.1]]))
    center, y, z = pixels[0]
    assert y[0] > center[0]
    assert y[1] == pytest.approx(center[1].item(), abs=1e-4)
    assert z[1] < center[1]


def test_the_field_of_view_ends_at_the_image_border() -> None:
    cameras = orbit(0.0, 90.0, 2.0, 0.8, 60, 30)
    edge = 2.0 * math.tan(0.4)
    pixels, _ = project(cameras, torch.tensor([[0.0, 0.0, edge], [0.0, 2 * edge, -edge]]))
    torch.testing.assert_close(pixels[0], torch.tensor([[29.5, -0.5], [59.5, 29.5]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("polar", [0.0, 180.0])
def test_the_poles_are_continuous_along_a_meridian(polar: float) -> None:
    near = polar + (1e-3 if polar == 0.0 else -1e-3)
    at, beside = orbit(30.0, polar, 3.0, 0.5, 32, 32), orbit(30.0, near, 3.0, 0.5, 32, 32)
    torch.testing.assert_close(at.viewmats, beside.viewmats, atol=1e-3, rtol=0)


def test_center_and_target_move_camera_and_gaze() -> None:
    center, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.0])
    moved = orbit([10.0, 20.0], 80.0, 2.0, 0.5, 33, 33, center=center)
    torch.testing.assert_close(
        moved.positions - center, orbit([10.0, 20.0], 80.0, 2.0, 0.5, 33, 33).positions
    )
    pixels, _ = project(moved, center[None])
    torch.testing.assert_close(pixels[:, 0], moved.principals, atol=1e-4, rtol=0)
    pixels, _ = project(
        orbit([10.0, 20.0], 80.0, 2.0, 0.5, 33, 33, center=center, target=target), target[None]
    )
    torch.testing.assert_close(pixels[:, 0], moved.principals, atol=1e-4, rtol=0)


def test_slicing_and_moving_keep_views_together() -> None:
    cameras = orbit([0.0, 90.0, 270.0], [80.0, 90.0, 100.0], 2.0, 0.5, 16, 8)
    assert len(cameras) == 3
    part = cameras[1:]
    assert (len(part), part.width, part.height) == (2, 16, 8)
    assert part.azimuth.tolist() == [90.0, -90.0]
    torch.testing.assert_close(cameras[[2]].viewmats, cameras.viewmats[2:])
    moved = cameras.to(torch.device("meta"))
    assert moved.fovy.device.type == moved.viewmats.device.type == "meta"
    assert moved.viewmats.shape == cameras.viewmats.shape
    tensors = {name: value for name, value in vars(cameras).items() if isinstance(value, Tensor)}
    copied = in_one_copy(tensors, "cpu")
    assert copied.keys() == tensors.keys()
    assert all(torch.equal(copied[name], tensor) for name, tensor in tensors.items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in copied.values()}) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([0.0, 1.0], [1.0, 2.0, 3.0], 1.0, 0.5, 8, 8), "broadcast"),
        (([[0.0]], 1.0, 1.0, 0.5, 8, 8), "broadcast"),
        ((0.0, 90.0, 0.0, 0.5, 8, 8), "radius"),
        ((0.0, 90.0, float("nan"), 0.5, 8, 8), "radius"),
        ((0.0, 90.0, 1.0, 3.2, 8, 8), "fovy"),
        ((0.0, 90.0, 1.0, 0.5, 0, 8), "width"),
    ],
)
def test_orbit_refuses_what_is_no_camera(arguments: tuple, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        orbit(*arguments)


def test_azimuths_wrap_to_the_half_open_interval() -> None:
    wrapped = wrap_degrees(torch.tensor([180.0, -180.0, 190.0, 540.0, 0.0, 359.0]))
    assert wrapped.tolist() == [-180.0, -180.0, -170.0, -180.0, 0.0, -1.0]


NARROW = GenerateCamParams(
    radius_range=(5.2, 5.5),
    max_radius_range=(3.5, 5.0),
    theta_range=(60, 90),
    max_theta_range=(45, 105),
    phi_range=(-60, 60),
    max_phi_range=(-180, 180),
    fovy_range=(0.32, 0.60),
    max_fovy_range=(0.16, 0.60),
)


def test_relaxation_reaches_every_max_range_and_passes_none() -> None:
    optimization = OptimizationParams()
    view_range = ViewRange.initial(NARROW)
    lows = ("max_theta_range", "max_phi_range", "max_fovy_range")
    for step in range(1, 10_001):
        view_range = relax(view_range, NARROW, optimization, step)
        for name in lows:
            low, high = getattr(view_range, name.split("_")[1])
            assert getattr(NARROW, name)[0] <= low <= high <= getattr(NARROW, name)[1]
        assert view_range.radius[0] >= NARROW.max_radius_range[0]
        assert view_range.radius[1] >= NARROW.max_radius_range[1]
    assert view_range == ViewRange((3.5, 5.0), (45.0, 105.0), (-180.0, 180.0), (0.16, 0.60))


def test_relaxation_comes_on_time_by_the_stated_factors() -> None:
    optimization = OptimizationParams(progressive_view_iter=400, scale_up_cameras_iter=300)
    start = ViewRange.initial(NARROW)
    changed = [s for s in range(1, 1000) if relax(start, NARROW, optimization, s) != start]
    assert changed == [600, 900]
    once = relax(start, NARROW, optimization, 600)
    assert once.radius == pytest.approx((5.2 * 0.95, 5.5 * 0.95))
    assert once.theta == pytest.approx((45.0, 105.0))
    assert once.phi == pytest.approx((-90.0, 90.0))
    assert once.fovy == pytest.approx((0.24, 0.60))
    held = OptimizationParams(use_progressive=True)
    assert view_range_at(NARROW, held, 5000) == start


@pytest.mark.parametrize(
    ("start", "after"),
    [
        ((-30, 60), [(-45, 90), (-67.5, 135), (-101.25, 180), (-151.875, 180), (-180, 180)]),
        ((30, 90), [(45, 135), (67.5, 180), (101.25, 180), (151.875, 180), (227.8125, 180)]),
        ((-80, -20), [(-120, -30), (-180, -45), (-180, -67.5), (-180, -101.25), (-180, -151.875)]),
    ],
)
def test_each_azimuth_is_multiplied_as_in_the_originals(
    start: tuple[float, float], after: list[tuple[float, float]]
) -> None:
    params = NARROW.model_copy(update={"phi_range": start, "jitter_pose": False})
    ranges = [view_range_at(params, OptimizationParams(), step).phi for step in range(500, 3000, 500)]
    assert torch.allclose(torch.tensor(ranges), torch.tensor(after, dtype=torch.float32))
    # A lower bound that has passed the upper one is still an end of what is drawn from.
    azimuths = sample(
        params, replace(ViewRange.initial(params), phi=after[-1]), 500, torch.Generator().manual_seed(0)
    ).azimuth
    low, high = sorted(after[-1])
    turned = torch.remainder(azimuths - low, 360.0)
    assert bool(((turned <= high - low + 1e-3) | (turned >= 360 - 1e-3)).all())


def test_a_resumed_run_has_the_view_range_of_an_unbroken_one() -> None:
    optimization = OptimizationParams(scale_up_cameras_iter=250)
    view_range = ViewRange.initial(NARROW)
    for step in range(1, 3001):
        view_range = relax(view_range, NARROW, optimization, step)
        if step % 123 == 0:
            assert view_range_at(NARROW, optimization, step) == view_range


def test_samples_stay_in_range_and_jitter_is_as_large_as_said() -> None:
    params = NARROW.model_copy(update={"image_w": 64, "image_h": 48})
    view_range = ViewRange.initial(params)
    cameras = sample(params, view_range, 2000, torch.Generator().manual_seed(0))
    assert (cameras.width, cameras.height) == (64, 48)
    bounds = {"radius": view_range.radius, "polar": view_range.theta, "azimuth": view_range.phi}
    for name, (low, high) in (bounds | {"fovy": view_range.fovy}).items():
        values = getattr(cameras, name)
        assert low - 1e-4 <= values.min() < values.max() <= high + 1e-4
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    still = params.model_copy(update={"jitter_pose": False})
    plain = sample(still, view_range, 2000, torch.Generator().manual_seed(0))
    shift = (cameras.positions - plain.positions).abs().max()
    assert 0.9 * 0.025 < shift <= 0.025 + 1e-4
    pixels, depth = project(plain, torch.zeros(1, 3))
    torch.testing.assert_close(pixels[:, 0], plain.principals, atol=1e-3, rtol=0)
    torch.testing.assert_close(depth[:, 0], plain.radius)
    pixels, depth = project(cameras, torch.zeros(1, 3))
    off_axis = (pixels[:, 0] - cameras.principals) * depth / cameras.focals
    # Target noise (0.05) and position noise do not add up independently of the view, but nearly so.
    assert off_axis.std().item() == pytest.approx(0.05, rel=0.15)


def test_gamma_draws_views_towards_the_middle() -> None:
    view_range = ViewRange.initial(GenerateCamParams())
    params = GenerateCamParams(rand_cam_gamma=1.5)
    azimuth = sample(params, view_range, 4000, torch.Generator().manual_seed(0)).azimuth
    # |azimuth| / 180 = u^1.5, so the median is 0.5^1.5.
    assert (azimuth.abs() / 180).median() == pytest.approx(0.5**1.5, abs=0.02)


def test_the_sphere_rate_gives_the_upper_half_sphere_uniformly() -> None:
    params = GenerateCamParams(uniform_sphere_rate=1.0, jitter_pose=False)
    cameras = sample(params, ViewRange.initial(params), 4000, torch.Generator().manual_seed(0))
    heights = cameras.positions[:, 2] / cameras.radius
    assert heights.min() >= -1e-6
    assert heights.mean() == pytest.approx(0.5, abs=0.02)
    assert heights.std() == pytest.approx(math.sqrt(1 / 12), abs=0.02)


def test_the_same_generator_state_gives_the_same_cameras() -> None:
    params = GenerateCamParams()
    a, b = (sample(params, ViewRange.initial(params), 4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a.viewmats, b.viewmats)


def test_azimuths_are_relative_to_the_front() -> None:
    params = GenerateCamParams(default_azimuth=90.0)
    cameras = six_views(params)
    assert cameras.azimuth.tolist() == pytest.approx([0, 60, 120, -180, -120, -60], abs=1e-4)
    torch.testing.assert_close(cameras.positions[0], torch.tensor([0.0, 3.5, 0.0]), atol=1e-5, rtol=0)


def test_the_turntable_goes_once_around_and_again_from_above() -> None:
    params = GenerateCamParams()
    assert len(turntable(params, 30)) == 30
    cameras = turntable(params, 30, render_45=True)
    assert cameras.polar.tolist() == [90.0] * 30 + [60.0] * 30
    turn = torch.linspace(0, 360 - 12, 30)
    torch.testing.assert_close(cameras.azimuth, wrap_degrees(torch.cat([turn, turn])), atol=1e-4, rtol=0)


def test_supersampling_enlarges_the_images_and_keeps_the_rays() -> None:
    plain, fine = (six_views(GenerateCamParams(SSAA=s, image_w=64, image_h=32)) for s in (1, 2))
    assert (fine.width, fine.height) == (128, 64)
    point = torch.tensor([[0.1, 0.2, -0.1]])
    # The centre of a coarse pixel p is the middle of the fine ones 2p and 2p + 1.
    torch.testing.assert_close(project(fine, point)[0], 2 * project(plain, point)[0] + 0.5, atol=1e-4, rtol=0)


def test_a_set_of_views_is_a_ring_around_the_asset() -> None:
    """Same polar angle, radius and field of view, a quarter turn on, and no jitter; rings are drawn as views are."""
    params = GenerateCamParams(uniform_sphere_rate=0.3, default_azimuth=30.0)
    view_range = ViewRange.initial(params)
    rings = sample(params, view_range, 12, torch.Generator().manual_seed(0), views_per_set=4)
    drawn = sample(params, view_range, 3, torch.Generator().manual_seed(0))
    for name in ("polar", "radius", "fovy", "focals"):
        values = getattr(rings, name).unflatten(0, (3, 4))
        assert torch.equal(values, getattr(drawn, name)[:, None].expand_as(values)), name
    turn = wrap_degrees(rings.azimuth.unflatten(0, (3, 4)) - drawn.azimuth[:, None])
    torch.testing.assert_close(turn, torch.tensor([0.0, 90.0, -180.0, -90.0]).expand(3, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(rings.positions.norm(dim=1), rings.radius)
    pixels, _ = project(rings, torch.zeros(1, 3))
    torch.testing.assert_close(pixels[:, 0], rings.principals, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="num_views is 6, but must be a multiple of 4"):
        sample(params, view_range, 6, torch.Generator(), views_per_set=4)
