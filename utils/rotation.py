"""Rotations as unit quaternions (w, x, y, z) and as matrices, and look-at frames."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_to_matrix(quaternions: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions (w, x, y, z) [..., 4] of any length but 0."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def look_at(positions: Tensor, targets: Tensor, up: Tensor, fallback_up: Tensor) -> Tensor:
    """World-to-camera matrices [V, 4, 4] in OpenCV axes (x right, y down, z forward), column vectors.

    positions, targets, up, fallback_up: [V, 3]. `fallback_up` serves the views that look along `up`, where
    the roll would be undefined; it must not be parallel to the line of sight.
    """
    forward = torch.nn.functional.normalize(targets - positions, dim=-1)
    right = torch.linalg.cross(forward, up)
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6 * up.norm(dim=-1, keepdim=True)
    right = torch.where(degenerate, torch.linalg.cross(forward, fallback_up), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)  # rows are the camera's axes in the world
    viewmats = torch.zeros(*positions.shape[:-1], 4, 4, dtype=positions.dtype, device=positions.device)
    viewmats[..., :3, :3] = rotation
    viewmats[..., :3, 3] = -(rotation @ positions[..., None])[..., 0]
    viewmats[..., 3, 3] = 1.0
    return viewmats
