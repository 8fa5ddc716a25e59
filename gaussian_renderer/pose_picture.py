"""The picture of a skeleton as OpenPose draws a body of 18 keypoints, which ControlNets for poses were trained on."""

from __future__ import annotations

import colorsys
import math

import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.skeleton.openpose import KEYPOINTS, Keypoints

DRAWN_AT = 512
"""Size of a picture that the widths below are for; others are scaled."""
HALF_WIDTH, RADIUS = 4.0, 4.0
"""Half the width of a limb in its middle, and the radius of a joint, in pixels."""
LIMB_SHADE = 0.6
"""Brightness of a limb; joints have 1."""
LIMBS = (
    *(("neck", "right_shoulder"), ("neck", "left_shoulder")),
    *(("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")),
    *(("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")),
    *(("neck", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle")),
    *(("neck", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle")),
    *(("neck", "nose"), ("nose", "right_eye"), ("right_eye", "right_ear")),
    *(("nose", "left_eye"), ("left_eye", "left_ear")),
)
"""Limbs in the order in which they are drawn; the first has the first colour."""
WHEEL = [
    tuple(round(255 * part) for part in colorsys.hsv_to_rgb(index / len(KEYPOINTS), 1, 1))
    for index in range(len(KEYPOINTS))
]
"""Hues around the wheel, from red on: OpenPose's colours of the keypoints."""
OTHER_SIDE = {"left": "right", "right": "left"}
MIRRORED = [
    KEYPOINTS.index("_".join(OTHER_SIDE.get(word, word) for word in key.split("_"))) for key in KEYPOINTS
]
"""The keypoint that each is taken for in a mirrored view: a mirrored right hand is a left hand."""


def pose(keypoints: Keypoints, cameras: Cameras, *, mirrored: bool, device: torch.device) -> Tensor:
    """Draw the keypoints that cameras (host) see [V, 3, H, W], on `device`: limbs as ellipses, joints as discs on top.

    As a detector would, it leaves out keypoints of the face that look away from the camera, and all beyond the picture's
    edge, with their limbs. What another part of the body covers is drawn.
    """
    places, seen = project(keypoints, cameras)
    if mirrored:
        places = torch.stack([cameras.width - 1 - places[..., 0], places[..., 1]], dim=-1)[:, MIRRORED]
        seen = seen[:, MIRRORED]
    # One copy, which is not waited for.
    both = torch.cat([torch.nan_to_num(places), seen[..., None].double()], dim=-1).float()
    both = both.to(device, non_blocking=True)
    x, y, seen_there = (both[..., column, None, None] for column in range(3))  # [V, 18, 1, 1]
    rows = torch.arange(cameras.height, device=device, dtype=torch.float32)[:, None]
    columns = torch.arange(cameras.width, device=device, dtype=torch.float32)
    scale = math.sqrt(cameras.width * cameras.height) / DRAWN_AT
    picture = torch.zeros(len(cameras), 3, cameras.height, cameras.width, device=device)

    def paint(cover: Tensor, color: tuple[int, ...], shade: float) -> None:
        # Not a tensor of the device made of numbers: that would be waited for.
        for channel, value in enumerate(color):
            picture[:, channel].lerp_(torch.full_like(picture[:, channel], shade * value / 255), cover)

    for (first, second), color in zip(LIMBS, WHEEL):
        i, j = KEYPOINTS.index(first), KEYPOINTS.index(second)
        across, down = x[:, j] - x[:, i], y[:, j] - y[:, i]
        length = (across.square() + down.square()).sqrt().clamp_min(1e-6)
        u, v = columns - (x[:, i] + x[:, j]) / 2, rows - (y[:, i] + y[:, j]) / 2
        along, beside = (u * across + v * down) / length, (v * across - u * down) / length
        half = (length / 2).clamp_min(0.5)
        cover = _inside(along, beside, half, HALF_WIDTH * scale)
        paint(cover * seen_there[:, i] * seen_there[:, j], color, LIMB_SHADE)
    for index, color in enumerate(WHEEL):
        away = ((columns - x[:, index]).square() + (rows - y[:, index]).square()).sqrt()
        cover = (RADIUS * scale + 0.5 - away).clamp(0, 1)
        paint(cover * seen_there[:, index], color, 1.0)
    return picture


def project(keypoints: Keypoints, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Project keypoints to pixels [V, 18, 2], float64, and tell which [V, 18] are drawn."""
    points = torch.from_numpy(keypoints.positions)
    turn, shift = cameras.viewmats[:, :3, :3].double(), cameras.viewmats[:, None, :3, 3].double()
    placed = torch.einsum("vij,kj->vki", turn, points) + shift
    ahead = placed[..., 2:]
    places = placed[..., :2] / ahead * cameras.focals[:, None].double() + cameras.principals[:, None].double()
    to_camera = torch.nn.functional.normalize(
        cameras.positions.double() - torch.from_numpy(keypoints.middle), dim=1
    )
    facing = torch.einsum("kj,vj->vk", torch.from_numpy(keypoints.outward), to_camera)
    edge = torch.tensor([cameras.width, cameras.height]) - 0.5
    within = ((places >= -0.5) & (places <= edge)).all(dim=-1)
    return places, within & (ahead[..., 0] > 0) & (facing >= torch.from_numpy(keypoints.hidden))


def _inside(u: Tensor, v: Tensor, a: Tensor, b: float) -> Tensor:
    """Share of each pixel that an ellipse with half-axes a and b covers, at u and v from its middle along these."""
    level = (u / a).square() + (v / b).square() - 1
    slope = 2 * ((u / a.square()).square() + (v / b**2).square()).sqrt()
    return (0.5 - level / slope.clamp_min(1e-6)).clamp(0, 1)
