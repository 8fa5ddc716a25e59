"""Gaussians in the axes of other programs.

Ours are right-handed, z up, the front facing +x. Axes are named as `init_axes` names them: the direction that points
up and the one to the front, such as 'y,z' of glTF. Left-handed ones, such as Unity's 'y,z,left', hold a mirrored asset,
which looks right to a program whose third axis is mirrored as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from diff_gaussian_rasterization.reference import sh_basis
from scene.gaussian_model import GaussianModel
from utils.axes import parts, up_and_front
from utils.spherical_harmonics import degree_of, num_coefficients

OURS = "z,x"
Y_UP = "y,z"
"""Axes of glTF 2.0 (section 3.4), OBJ by custom, and SPZ: x to the right of who looks at the front, y up, z
towards them.
"""
Y_DOWN = "-y,-z"
"""Axes of files that descend from COLMAP's cameras, as .ply and .splat do: x right, y down, z away from who looks."""


def parse_axes(text: str, key: str = "axes") -> str:
    """Axes without spaces and plus signs. Raises ValueError, one sentence, for anything but two different axes."""
    axes = up_and_front(text)
    if axes is None:
        raise ValueError(
            f"{key} is {text!r}, but it must name the directions up and to the front, such as y,z or z,-y, "
            "and end in ,left if they are left-handed."
        )
    return axes


def turn(axes: str) -> Tensor:
    """The matrix [3, 3], float64, that takes points (columns) from our axes to `axes`: a rotation, or for left-handed
    axes a rotation with a reflection."""
    first, second, left_handed = parts(axes)
    up, front = direction(first), direction(second)
    left = torch.linalg.cross(up, front)
    # Where our x, y and z go.
    return torch.stack([front, -left if left_handed else left, up], dim=1)


def direction(name: str) -> Tensor:
    """Unit vector [3], float64, of a name such as '-y'."""
    found = torch.zeros(3, dtype=torch.float64)
    found["xyz".index(name[-1])] = -1.0 if name.startswith("-") else 1.0
    return found


def in_axes(gaussians: GaussianModel, axes: str, source: str = OURS) -> GaussianModel:
    """Gaussians, on the host, which are in the axes `source`, as a program with `axes` sees them."""
    raw = {name: tensor.numpy(force=True) for name, tensor in gaussians.state_dict().items()}
    host = {name: torch.from_numpy(values) for name, values in raw.items()}
    return GaussianModel(host if axes == source else turned(host, turn(axes) @ turn(source).T))


def turned(raw: Mapping[str, Tensor], rotation: Tensor) -> dict[str, Tensor]:
    """Parameters of Gaussians, on the host: places, rotations and harmonics turned by a rotation [3, 3], float64, which
    may also mirror."""
    quaternions = torch.nn.functional.normalize(raw["rotation"].double(), dim=-1)
    # The rasterizer takes a quaternion of length 0 for no rotation.
    quaternions[quaternions.norm(dim=-1) == 0] = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    # A Gaussian is its own image in a point: where a reflection is left over, its negative turns it as well.
    proper = rotation * torch.linalg.det(rotation).sign()
    # SciPy's order is (x, y, z, w).
    after = Rotation.from_matrix(proper.numpy()) * Rotation.from_quat(quaternions[:, [1, 2, 3, 0]].numpy())
    new = dict(raw)
    new["rotation"] = torch.from_numpy(after.as_quat()[:, [3, 0, 1, 2]]).float()
    new["xyz"] = (raw["xyz"].double() @ rotation.T).float()
    degree = degree_of(raw["f_rest"].shape[1] + 1)
    if degree > 0:
        matrix = harmonics_turn(rotation, degree)[1:, 1:]
        new["f_rest"] = torch.einsum("jk,nkc->njc", matrix, raw["f_rest"].double()).float()
    return new


def harmonics_turn(rotation: Tensor, degree: int) -> Tensor:
    """Turn of harmonics [K, K], float64, K = (degree + 1)².

    It takes the coefficients of a function on the sphere to those of the function turned by `rotation`. A
    turned function has at direction d the value that it had at R^T d, for a reflection as well. Harmonics up to a degree contain all
    turned ones of that degree, so that equality at enough directions settles the matrix.
    """
    directions = _spread(4 * num_coefficients(degree))
    here, before = sh_basis(directions, degree), sh_basis(directions @ rotation, degree)
    return torch.linalg.lstsq(here, before).solution


def _spread(count: int) -> Tensor:
    """`count` directions [count, 3] all around, float64: a Fibonacci spiral."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    azimuth = index * torch.pi * (3 - 5**0.5)
    r = (1 - z * z).sqrt()
    return torch.stack([r * azimuth.cos(), r * azimuth.sin(), z], dim=-1)
