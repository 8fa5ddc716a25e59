from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gaussian_renderer import render
from scene.axes import OURS, Y_DOWN, Y_UP, harmonics_turn, in_axes, parse_axes, turn
from scene.cameras import orbit
from scene.point_cloud import upright
from tests.exporting.assets import random_gaussians

ALL_AXES = [Y_UP, Y_DOWN, "z,-y", "-x,z", OURS]


@pytest.mark.parametrize("axes", ALL_AXES)
def test_it_is_a_rotation_that_upright_takes_back(axes: str) -> None:
    rotation = turn(axes)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    points = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(upright(points @ rotation.T, axes), points)


def test_named_axes_point_where_they_say() -> None:
    front, left, up = torch.eye(3, dtype=torch.float64)
    for axes, expected_front, expected_up in ((Y_UP, [0, 0, 1], [0, 1, 0]), (Y_DOWN, [0, 0, -1], [0, -1, 0])):
        assert (turn(axes) @ front).tolist() == expected_front
        assert (turn(axes) @ up).tolist() == expected_up
        # Who looks at the front has our +y on the right, which is x in both.
        assert (turn(axes) @ left).tolist() == [1, 0, 0]


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_gaussians_look_the_same_to_turned_cameras(axes: str, degree: int) -> None:
    gaussians = random_gaussians(60, degree)
    cameras = orbit([10.0, 100.0, 250.0], [30.0, 80.0, 130.0], 4.0, 0.6, 48, 48)
    viewmats = cameras.viewmats.clone()
    viewmats[:, :3, :3] = cameras.viewmats[:, :3, :3] @ turn(axes).T.float()
    before = render(gaussians, cameras, torch.zeros(3))
    after = render(in_axes(gaussians, axes), replace(cameras, viewmats=viewmats), torch.zeros(3))
    assert float(before.alpha.detach().max()) > 0.5
    torch.testing.assert_close(after.rgb, before.rgb, atol=2e-5, rtol=0)


@pytest.mark.parametrize("axes", ["y,z,left", "z,x,left"])
def test_a_mirrored_asset_looks_mirrored_to_a_mirrored_camera(axes: str) -> None:
    """As Unity and Unreal draw it, whose third axis is mirrored as well."""
    gaussians, mirror = random_gaussians(60, 3), turn(axes).float()
    assert float(torch.linalg.det(mirror)) == pytest.approx(-1.0)
    cameras = orbit([10.0, 100.0, 250.0], [30.0, 80.0, 130.0], 4.0, 0.6, 48, 48)
    viewmats = cameras.viewmats.clone()
    # Right and left change places in a mirrored camera, whose axes are right-handed again.
    viewmats[:, :3, :3] = cameras.viewmats[:, :3, :3] @ mirror.T
    viewmats[:, 0] *= -1
    before = render(gaussians, cameras, torch.zeros(3))
    after = render(in_axes(gaussians, axes), replace(cameras, viewmats=viewmats), torch.zeros(3))
    assert float(before.alpha.detach().max()) > 0.5
    torch.testing.assert_close(after.rgb.flip(-1), before.rgb, atol=2e-5, rtol=0)
    # Without the mirror's part in harmonics and rotations it would not.
    assert float((after.rgb - before.rgb).detach().abs().max()) > 0.05
    again = in_axes(in_axes(gaussians, axes), OURS, axes)
    torch.testing.assert_close(again.shs, gaussians.shs, atol=1e-5, rtol=0)


def test_turns_of_harmonics_follow_each_other() -> None:
    a, b = turn(Y_UP), turn("-x,z")
    both = harmonics_turn(a @ b, 3)
    torch.testing.assert_close(harmonics_turn(a, 3) @ harmonics_turn(b, 3), both, atol=1e-12, rtol=0)
    torch.testing.assert_close(both @ both.T, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_our_own_axes_change_nothing() -> None:
    gaussians = random_gaussians(9, 2)
    for name, tensor in in_axes(gaussians, OURS).raw().items():
        assert torch.equal(tensor, gaussians.raw()[name])


def test_a_quaternion_of_length_0_is_no_rotation() -> None:
    gaussians = random_gaussians(2, 0)
    gaussians.raw()["rotation"].data[1] = 0
    turned = in_axes(gaussians, Y_UP)
    assert bool(torch.isfinite(turned.rotations).all())
    cameras = orbit(0.0, 90.0, 4.0, 0.6, 16, 16)
    assert bool(torch.isfinite(render(turned, cameras, torch.zeros(3)).rgb).all())


@pytest.mark.parametrize(("text", "axes"), [("y,z", "y,z"), (" +Z , -y", "z,-y"), ("y, z, Left", "y,z,left")])
def test_axes_are_read(text: str, axes: str) -> None:
    assert parse_axes(text) == axes


@pytest.mark.parametrize("text", ["", "y", "y,y", "y,-y", "up,front", "x,y,z", "y,z,right"])
def test_wrong_axes_get_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^axes is .* up and to the front, such as y,z"):
        parse_axes(text)
