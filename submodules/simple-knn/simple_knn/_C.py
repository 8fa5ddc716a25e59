"""The module name and the function name of the CUDA extension that 3D Gaussian Splatting uses."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

LONE_POINT = 1e-7
"""Result for a point that has no neighbour: small, positive and safe to take the logarithm of."""


def distCUDA2(points: Tensor) -> Tensor:
    """Mean squared distance [N] of each of the points [N, 3] to its three nearest neighbours.

    Any device and floating type; computed in float64 on the host. Of fewer than four points each gets the
    mean over the neighbours it has, a lone point LONE_POINT. Duplicates are neighbours at distance 0.
    Raises ValueError for another shape and for coordinates that are not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points has shape {list(points.shape)}, but it must be [N, 3].")
    coordinates = points.detach().double().numpy(force=True)
    if not np.isfinite(coordinates).all():
        raise ValueError("points has coordinates that are not finite, but distances need numbers.")
    count = len(coordinates)
    if count < 2:
        return torch.full((count,), LONE_POINT, dtype=points.dtype, device=points.device)
    neighbours = min(3, count - 1)
    distances, _ = cKDTree(coordinates).query(coordinates, k=neighbours + 1, workers=-1)
    # The first column is the distance 0 to the point itself, or to a duplicate that stands in for it.
    mean = np.square(distances[:, 1:]).mean(axis=1)
    return torch.from_numpy(mean).to(dtype=points.dtype, device=points.device)
