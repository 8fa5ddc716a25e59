"""Cameras as a network of several views is told them: camera to world, at distance 1."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.rotation import look_at

OPENGL = (1.0, -1.0, -1.0)
"""Signs that turn the axes of OpenCV's cameras, x right, y down, z forward, into OpenGL's: x right, y up, z back."""


def camera_matrices(azimuth: Tensor, polar: Tensor) -> Tensor:
    """Return what MVDream's networks are told of cameras at azimuth [V] and polar [V], in degrees: [V, 16] float32.

    Each row is a camera-to-world matrix [4, 4], row by row. The world is this project's: z up, the front of the asset
    towards +x, azimuths from there towards +y. The camera looks at the origin from distance 1, whatever its distance
    is, and its axes are OpenGL's.
    """
    turn, tilt = torch.deg2rad(azimuth.double()), torch.deg2rad(polar.double())
    across, up = torch.stack([turn.cos(), turn.sin()], -1), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    position = torch.cat([tilt.sin()[:, None] * across, tilt.cos()[:, None]], -1)
    north = torch.cat([-tilt.cos()[:, None] * across, tilt.sin()[:, None]], -1)
    to_camera = look_at(position, torch.zeros_like(position), up.expand_as(position), north)
    matrices = torch.eye(4, dtype=torch.float64).repeat(len(position), 1, 1)
    matrices[:, :3, :3] = to_camera[:, :3, :3].transpose(1, 2) * torch.tensor(OPENGL, dtype=torch.float64)
    matrices[:, :3, 3] = position
    return matrices.flatten(1).float()
