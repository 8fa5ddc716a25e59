"""Browsers' cameras are the project's, and paths go through their views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import Config
from scene.cameras import turntable
from viewer.orbit import Orbit, around, cameras_at, fitted, path

orbits = st.builds(
    Orbit,
    target=st.tuples(*[st.floats(-2, 2)] * 3),
    azimuth=st.floats(-180, 180),
    polar=st.floats(2, 178),
    radius=st.floats(0.1, 10),
    fovy=st.floats(0.1, 1.5),
)


@given(orbits)
def test_a_view_is_known_from_its_position_and_target(view: Orbit) -> None:
    again = Orbit.of(view.position, view.target, view.fovy)
    assert again.position == pytest.approx(view.position, abs=1e-9)
    assert again.polar == pytest.approx(view.polar, abs=1e-6)
    assert math.remainder(again.azimuth - view.azimuth, 360) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("position", [(1.0, 2.0, 3.0), (1.0, 2.0, 5.0), (1.0, 2.0, -5.0)])
def test_there_is_a_picture_from_the_target_itself_and_straight_above_and_below(
    position: tuple[float, float, float],
) -> None:
    cameras = cameras_at([Orbit.of(position, (1.0, 2.0, 3.0), 0.5)], 8, 8)
    assert bool(torch.isfinite(cameras.viewmats).all())
    torch.testing.assert_close(cameras.positions[0], torch.tensor(position), atol=1e-4, rtol=0)


@given(orbits)
def test_the_camera_stands_there_looks_at_the_target_and_holds_up_z(view: Orbit) -> None:
    cameras = cameras_at([view], 60, 40)
    torch.testing.assert_close(cameras.positions[0], torch.tensor(view.position), atol=1e-4, rtol=1e-4)
    matrix = cameras.viewmats[0]
    target = matrix @ torch.tensor([*view.target, 1.0])
    torch.testing.assert_close(
        target[:3], torch.tensor([0.0, 0.0, view.radius]), atol=1e-4 * (1 + view.radius), rtol=0
    )
    right, down = matrix[0, :3], matrix[1, :3]
    assert abs(float(right[2])) < 1e-5
    assert float(down[2]) < 0
    assert float(cameras.focals[0, 1]) == pytest.approx(20 / math.tan(view.fovy / 2), rel=1e-5)


def test_a_runs_front_is_its_turntables_first_view() -> None:
    config = Config()
    expected = turntable(config.camera, 8)
    found = cameras_at(around(Orbit.front(config), 8), expected.width, expected.height)
    torch.testing.assert_close(found.viewmats, expected.viewmats)
    torch.testing.assert_close(found.focals, expected.focals)


@given(st.lists(orbits, min_size=2, max_size=5))
def test_a_path_goes_through_its_views(views: list[Orbit]) -> None:
    found = path(views, 10 * (len(views) - 1) + 1)
    for view, frame in zip(views, found[::10], strict=True):
        assert frame.position == pytest.approx(view.position, abs=1e-6)
        assert frame.target == pytest.approx(view.target, abs=1e-6)
        assert frame.fovy == pytest.approx(view.fovy, abs=1e-9)


def test_a_path_takes_the_shorter_way_around_its_target() -> None:
    one, other = (Orbit((0.0, 0.0, 0.0), azimuth, 90.0, 2.0, 0.5) for azimuth in (170.0, -150.0))
    frames = path([one, other], 21)
    assert np.allclose([math.hypot(*frame.position) for frame in frames], 2.0)
    assert [frame.azimuth for frame in frames] == pytest.approx(np.linspace(170, 210, 21))


@pytest.mark.parametrize("count", [0, 1])
def test_a_path_needs_two_views(count: int) -> None:
    with pytest.raises(ValueError, match=f"through {count} views needs at least 2"):
        path([Orbit.front(Config())] * count, 10)


@given(st.floats(0.1, 1.5), st.floats(0.2, 5))
def test_a_picture_of_any_shape_shows_what_a_square_one_shows(fovy: float, aspect: float) -> None:
    vertical = math.tan(fitted(fovy, aspect) / 2)
    assert min(vertical, vertical * aspect) == pytest.approx(math.tan(fovy / 2))
