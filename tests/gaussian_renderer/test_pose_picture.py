"""The picture of a skeleton: where its joints are, by a projection of its own, which are seen, and in which colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from config import Config
from gaussian_renderer.guide_pictures import guide_pictures
from gaussian_renderer.pose_picture import pose
from scene.cameras import Cameras, orbit
from scene.guide_shape import GuideShape, load_guide_shape
from scene.skeleton.openpose import KEYPOINTS, keypoints_of
from scene.skeleton.placed import load_skeleton
from tests.bodies import JOINTS, PLACES, in_the_world, write_body
from tests.changed import changed
from tests.waits import DEVICE, no_waits
from utils.device import HOST
from utils.rng import Draws

SIZE = 512
RED_TO_PINK = {
    "nose": (255, 0, 0), "neck": (255, 85, 0), "right_shoulder": (255, 170, 0), "right_elbow": (255, 255, 0),
    "right_wrist": (170, 255, 0), "left_shoulder": (85, 255, 0), "left_elbow": (0, 255, 0),
    "left_wrist": (0, 255, 85), "right_hip": (0, 255, 170), "right_knee": (0, 255, 255),
    "right_ankle": (0, 170, 255), "left_hip": (0, 85, 255), "left_knee": (0, 0, 255),
    "left_ankle": (85, 0, 255), "right_eye": (170, 0, 255), "left_eye": (255, 0, 255),
    "right_ear": (255, 0, 170), "left_ear": (255, 0, 85),
}  # fmt: skip
"""OpenPose's colours, as its pictures have them."""


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> GuideShape:
    mesh, skeleton = write_body(tmp_path_factory.mktemp("body"))
    config = changed(Config(), init_shape=mesh, skeleton=skeleton, image_w=64, image_h=64)
    guide = load_guide_shape(config, Draws(0), HOST)
    return GuideShape(guide.gaussians, guide.normals, keypoints_of(load_skeleton(config, Draws(0))))


def centre(picture: Tensor, color: tuple[int, ...]) -> np.ndarray | None:
    """Middle (x, y) of the pixels [3, H, W] that have the full colour, as only a joint's disc has; None for none."""
    wanted = torch.tensor(color)[:, None, None] / 255
    rows, columns = torch.nonzero(((picture - wanted).abs() < 0.02).all(dim=0), as_tuple=True)
    return None if len(rows) == 0 else np.array([columns.double().mean(), rows.double().mean()])


def seen_at(place: np.ndarray, azimuth: float, polar: float, radius: float, fovy: float) -> np.ndarray:
    """Pixel of a place [3] in a view of SIZE² from an orbit around the origin: written anew, in angles."""
    a, t = math.radians(azimuth), math.radians(polar)
    back = np.array([math.sin(t) * math.cos(a), math.sin(t) * math.sin(a), math.cos(t)])
    right = np.array([-math.sin(a), math.cos(a), 0.0])
    up = np.cross(back, right)
    depth = radius - place @ back
    scale = SIZE / (2 * math.tan(fovy / 2)) / depth
    return np.array([(SIZE - 1) / 2 + scale * (place @ right), (SIZE - 1) / 2 - scale * (place @ up)])


def test_joints_are_where_a_projection_of_its_own_has_them(shape: GuideShape) -> None:
    """Within a pixel, from three sides, at the place to which the run moves the mesh: in the middle, three quarters of half
    the view in size."""
    assert shape.keypoints is not None
    assert shape.keypoints.missing == shape.keypoints.assumed == ()
    world = {name: in_the_world(place) for name, place in PLACES.items()}
    world["neck"] = (world["left_shoulder"] + world["right_shoulder"]) / 2
    # The move of the mesh, from two of its joints, checks the rest.
    first, last = (shape.keypoints.positions[KEYPOINTS.index(name)] for name in ("left_ankle", "right_wrist"))
    scale = np.linalg.norm(last - first) / np.linalg.norm(world["right_wrist"] - world["left_ankle"])
    shift = first - scale * world["left_ankle"]
    low, high = shape.gaussians.means.detach().double().aminmax(dim=0)
    assert (low + high).abs().max() < 0.02
    for azimuth, polar in ((0.0, 90.0), (-15.0, 75.0), (20.0, 60.0)):
        cameras = orbit([azimuth], [polar], 3.0, 0.6, SIZE, SIZE)
        [[picture]] = guide_pictures(shape, cameras, ["pose"], SIZE, mirrored=False)
        for name, color in RED_TO_PINK.items():
            found = centre(picture, color)
            wanted = seen_at(scale * world[name] + shift, azimuth, polar, 3.0, 0.6)
            # Limbs and other joints leave it free in these views.
            assert found is not None, name
            assert np.abs(found - wanted).max() < 1, (name, azimuth)


def names_in(picture: Tensor) -> set[str]:
    return {name for name, color in RED_TO_PINK.items() if centre(picture, color) is not None}


def views(*azimuths: float, radius: float = 3.0) -> Cameras:
    return orbit([*azimuths], [90.0] * len(azimuths), radius, 0.6, SIZE, SIZE)


def test_what_no_detector_would_see_is_not_drawn(shape: GuideShape) -> None:
    """Of the face, what looks away; of the rest, what is beyond the edge."""
    pictures = guide_pictures(shape, views(0, 90, 180, 215), ["pose"], SIZE, mirrored=False)[:, 0]
    body = {name for name in JOINTS if name in RED_TO_PINK} | {"neck"}
    face = {name for name in RED_TO_PINK if name not in body}
    front, left, back, behind = (names_in(picture) for picture in pictures)
    assert front == body | face
    assert left & face == {"nose", "left_eye", "left_ear"}
    assert back & face == {"left_ear", "right_ear"}
    assert behind & face == {"right_ear"}
    assert back >= body
    close = names_in(guide_pictures(shape, views(0, radius=1.2), ["pose"], SIZE, mirrored=False)[0, 0])
    assert "right_hip" in close
    assert not close & {"right_wrist", "left_ankle", "right_ankle"}
    # Limbs are darker, and end with their joints.
    [[picture]] = guide_pictures(shape, views(0), ["pose"], SIZE, mirrored=False)
    assert ((picture - torch.tensor([0.6, 0.2, 0.0])[:, None, None]).abs() < 0.02).all(dim=0).sum() > 50
    assert float(picture[:, 0, 0].sum()) == 0


def test_the_host_does_not_wait_for_the_picture(shape: GuideShape) -> None:
    assert shape.keypoints is not None
    with no_waits():
        drawn = pose(shape.keypoints, views(0, 30), mirrored=True, device=DEVICE)
    assert drawn.shape == (2, 3, SIZE, SIZE)


def test_a_mirrored_body_has_its_right_hand_where_its_left_hand_was(shape: GuideShape) -> None:
    plain, mirrored = (
        guide_pictures(shape, views(30), ["pose", "mask"], SIZE, mirrored=flip)[0] for flip in (False, True)
    )
    assert torch.equal(mirrored[1], plain[1].flip(-1))
    for name, other in (("right_wrist", "left_wrist"), ("left_knee", "right_knee"), ("nose", "nose")):
        x, y = centre(plain[0], RED_TO_PINK[name])
        np.testing.assert_allclose(centre(mirrored[0], RED_TO_PINK[other]), (SIZE - 1 - x, y), atol=0.6)
