"""Module and function under the names of the CUDA extension that 3D Gaussian Splatting uses."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

LONE_POINT = 1e-7
"""Result for a point that has no neighbour: small, positive and safe to take the logarithm of."""

NEIGHBOURS = 3
QUERIES_AT_ONCE = 1_000_000


def distCUDA2(points: Tensor) -> Tensor:
    """Mean squared distance [N] of each of the points [N, 3] to its three nearest neighbours.

    Any device and floating type; computed in float64 on the host, by as many threads as torch uses. Of fewer than
    four points each gets the mean over the neighbours it has, a lone point LONE_POINT. Duplicates are neighbours at
    distance 0. Raises ValueError for another shape and for coordinates that are not finite.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points has shape {list(points.shape)}, but it must be [N, 3].")
    coordinates = points.detach().double().numpy(force=True)
    if not np.isfinite(coordinates).all():
        raise ValueError("points has coordinates that are not finite, but distances need numbers.")
    if len(coordinates) < 2:
        mean = np.full(len(coordinates), LONE_POINT)
    else:
        mean = _mean_squared_distances(coordinates)
    return torch.from_numpy(mean).to(dtype=points.dtype, device=points.device)


def _mean_squared_distances(points: np.ndarray) -> np.ndarray:
    """Mean squared distances [N] for float64 points [N, 3], N at least 2."""
    # Boxes that are not shrunk to their points save a fifth of the building and cost the queries nothing.
    tree = cKDTree(points, compact_nodes=False)
    # Leaf by leaf, so that queries which follow each other visit the same nodes, still in the processor's cache.
    order = tree.indices
    apart = _without_crowds(points[order])
    if len(apart) < len(points):
        order = order[apart]
        tree = cKDTree(points[order], compact_nodes=False)
    count = min(NEIGHBOURS, len(points) - 1)
    mean = np.zeros(len(points))
    for start in range(0, len(order), QUERIES_AT_ONCE):
        rows = order[start : start + QUERIES_AT_ONCE]
        distances, _ = tree.query(points[rows], k=count + 1, workers=torch.get_num_threads())
        # The first column is the distance 0 to the point itself, or to a duplicate that stands in for it.
        mean[rows] = np.square(distances[:, 1:]).mean(axis=1)
    return mean


def _without_crowds(points: np.ndarray) -> np.ndarray:
    """Rows of points [N, 3], sorted by the leaves of a tree, that leave NEIGHBOURS + 1 in a run of equal points.

    A point that is left out has its neighbours at distance 0, and there are copies enough for those of all others.
    No plane divides equal points: each query of a leaf with many would visit them all.
    """
    same = (points[1:] == points[:-1]).all(axis=1)
    crowded = np.arange(len(points)) > NEIGHBOURS
    for back in range(NEIGHBOURS + 1):
        crowded[NEIGHBOURS + 1 :] &= same[back : len(same) - NEIGHBOURS + back]
    return np.flatnonzero(~crowded)
