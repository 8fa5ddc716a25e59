"""The skin of a mesh: which joints of a skeleton move each vertex."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.spatial import cKDTree

from scene.skeleton.skeleton import Skeleton, Skin, strongest

Array = NDArray[Any]
WHOLE = 65535
"""Sum of a vertex's weights in a file: whole numbers, so that it is exact."""
SAMPLES = 50_000
"""Points on the skin among which those next to a vertex are looked for."""
NEAREST = 8
"""Points of which a vertex takes the mean weights."""
FACING = 0.05
"""Length, as a share of the body's longest side, that a turn of the surface by 60 degrees counts for: the inside of an arm is
not next to the ribs."""
LEFT = 0.02
"""Distance from the skin, as a share of the body's longest side, at which a vertex heeds its neighbours as much as the skin; and the length
of an edge across which it does."""
ROUNDS = 20
"""How often neighbours are heeded."""
FALLOFF = 4
"""Power of the distance to a bone by which its joint's weight falls, where a skeleton has no skin."""


@dataclass(frozen=True)
class Rig:
    """Skeleton of a mesh, the joints [V, 4] that move each vertex, and their weights [V, 4] in whole 65535ths, uint16."""

    skeleton: Skeleton
    joints: NDArray[np.uint16]
    weights: NDArray[np.uint16]

    def moved(self, turn: Array, scale: float, shift: Array) -> Rig:
        """The same rig of a mesh that was moved as `Skeleton.moved` has it."""
        return replace(self, skeleton=self.skeleton.moved(turn, scale, shift))

    def at(self, rows: NDArray[np.int64]) -> Rig:
        """The rig of a mesh whose vertices are those of this one at `rows`."""
        return replace(self, joints=self.joints[rows], weights=self.weights[rows])


def bind(vertices: Array, normals: Array, faces: Array, skeleton: Skeleton) -> Rig:
    """Find the weights of a closed mesh, vertices [V, 3], their normals [V, 3] and faces [F, 3], of the body that the skeleton is of.

    They are those of the skin next to each vertex that faces the same way, and away from it more and more the mean of the
    vertex's neighbours. A skeleton without a skin gives weights by the distance to its bones.
    """
    vertices = vertices.astype(np.float64)
    skin = skeleton.skin
    shares = (
        _by_bones(vertices, skeleton)
        if skin is None
        else _from_skin(vertices, normals, faces, skin, len(skeleton.names))
    )
    joints, weights = strongest(shares)
    whole = in_whole(weights)
    # A weight that is rounded to 0 names no joint.
    return Rig(replace(skeleton, skin=None), np.where(whole > 0, joints, 0).astype(np.uint16), whole)


def in_whole(weights: Array) -> NDArray[np.uint16]:
    """Round weights [V, 4], which sum to 1, to whole 65535ths that do exactly: the largest takes what is left over."""
    rounded = np.rint(weights * WHOLE).astype(np.int64)
    rows = np.arange(len(rounded))
    rounded[rows, rounded.argmax(axis=1)] += WHOLE - rounded.sum(axis=1)
    return rounded.astype(np.uint16)


def _from_skin(vertices: Array, normals: Array, faces: Array, skin: Skin, count: int) -> Array:
    """Shares [V, J] of the joints."""
    points, ways, shares = _samples(skin, count)
    size = float(np.ptp(skin.vertices, axis=0).max())
    tree = cKDTree(np.hstack([points, FACING * size * ways]))
    _, nearest = tree.query(np.hstack([vertices, FACING * size * normals]), k=min(NEAREST, len(points)))
    nearest = nearest.reshape(len(vertices), -1)
    away = np.linalg.norm(points[nearest] - vertices[:, None], axis=2)
    # Those as near as the nearest count fully.
    near = np.exp(-((away - away.min(axis=1, keepdims=True)) / (0.01 * size)))
    near /= near.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(vertices)), nearest.shape[1])
    mean = coo_array((near.ravel(), (rows, nearest.ravel())), (len(vertices), len(points))).tocsr()
    own = (mean @ shares).toarray()
    left = away.min(axis=1) ** 2
    heed = (left / (left + (LEFT * size) ** 2))[:, None]
    neighbours = _neighbours(vertices, faces, LEFT * size)
    found = own
    for _ in range(ROUNDS):
        found = (1 - heed) * own + heed * (neighbours @ found)
    return found


def _samples(skin: Skin, count: int) -> tuple[Array, Array, csr_array]:
    """Points [P, 3] evenly on a skin, the way [P, 3] that each faces, and the shares [P, J] of the joints there."""
    corners = skin.vertices[skin.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(across, axis=1)
    rng = np.random.default_rng(0)
    drawn = np.searchsorted(areas.cumsum(), (np.arange(SAMPLES) + 0.5) / SAMPLES * areas.sum(), side="right")
    drawn = np.minimum(drawn, len(areas) - 1)
    a, b = rng.random((2, SAMPLES))
    a, b = np.where(a + b > 1, [1 - a, 1 - b], [a, b])
    inside = np.stack([1 - a - b, a, b], axis=1)
    points = np.einsum("pk,pkd->pd", inside, corners[drawn])
    rows = np.repeat(np.arange(SAMPLES), 3)
    between = coo_array(
        (inside.ravel(), (rows, skin.faces[drawn].ravel())), (SAMPLES, len(skin.vertices))
    ).tocsr()
    owners = np.repeat(np.arange(len(skin.vertices)), skin.joints.shape[1])
    of_vertices = coo_array(
        (skin.weights.ravel(), (owners, skin.joints.ravel())), (len(skin.vertices), count)
    ).tocsr()
    return points, across[drawn] / areas[drawn, None], between @ of_vertices


def _neighbours(vertices: Array, faces: Array, reach: float) -> csr_array:
    """Mean [V, V] over a vertex and those that share an edge with it, which count the less the longer that is."""
    count = len(vertices)
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    itself = np.arange(count)[:, None].repeat(2, axis=1)
    ends = np.unique(np.concatenate([ends, ends[:, ::-1], itself]), axis=0)
    lengths = np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)
    near = coo_array((np.exp(-((lengths / reach) ** 2)), (ends[:, 0], ends[:, 1])), (count, count)).tocsr()
    return diags_array(1 / near.sum(axis=1)) @ near


def _by_bones(vertices: Array, skeleton: Skeleton) -> Array:
    """Shares [V, J] of the joints, by the distance to the nearest bone of each."""
    joints, starts, ends = skeleton.bones
    shares = np.zeros((len(vertices), len(skeleton.names)))
    for joint, start, end in zip(joints, starts, ends):
        along = end - start
        share = np.clip((vertices - start) @ along / max(float(along @ along), 1e-12), 0, 1)
        away = np.linalg.norm(vertices - start - share[:, None] * along, axis=1)
        shares[:, joint] = np.maximum(shares[:, joint], 1 / np.maximum(away, 1e-6) ** FALLOFF)
    return shares
