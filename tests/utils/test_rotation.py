from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation

from utils.rotation import look_at, quaternion_to_matrix


def test_quaternions_agree_with_scipy_whatever_their_length() -> None:
    q = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = Rotation.from_quat(q.numpy(), scalar_first=True).as_matrix()
    torch.testing.assert_close(quaternion_to_matrix(q), torch.from_numpy(expected))
    torch.testing.assert_close(quaternion_to_matrix(-3.0 * q), quaternion_to_matrix(q))


def test_look_at_is_a_rotation_with_the_target_ahead_and_up_above() -> None:
    rng = torch.Generator().manual_seed(1)
    positions, targets, up = torch.randn(3, 40, 3, dtype=torch.float64, generator=rng)
    viewmats = look_at(positions, targets, up, up)
    rotations = viewmats[:, :3, :3]
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(40, dtype=torch.float64))
    seen = (rotations @ targets[..., None])[..., 0] + viewmats[:, :3, 3]
    distance = (targets - positions).norm(dim=1)
    torch.testing.assert_close(seen, torch.stack([0 * distance, 0 * distance, distance], dim=1))
    up_in_camera = (rotations @ up[..., None])[..., 0]
    torch.testing.assert_close(up_in_camera[:, 0], torch.zeros(40, dtype=torch.float64))
    assert bool((up_in_camera[:, 1] < 0).all())


def test_looking_along_up_takes_the_fallback() -> None:
    position, target = torch.tensor([[0.0, 0.0, 2.0]]), torch.zeros(1, 3)
    up, fallback = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    rotation = look_at(position, target, up, fallback)[0, :3, :3]
    torch.testing.assert_close(rotation, torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]))
