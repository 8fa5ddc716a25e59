"""A skeleton, and the surface that it bends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST = 4
"""Joints that move a vertex, at most: as many as glTF's first set holds."""


@dataclass(frozen=True)
class Skin:
    """The surface that a skeleton bends.

    Attributes:
        vertices: [V, 3] float64.
        faces: [F, 3] int64, counter-clockwise from outside.
        joints: [V, 4] int64, the joints that move each vertex.
        weights: [V, 4] float64, their shares, which sum to 1.
        colors: [V, 3] in [0, 1], sRGB, or None.
    """

    vertices: Array
    faces: Array
    joints: Array
    weights: Array
    colors: Array | None = None


@dataclass(frozen=True)
class Landmark:
    """A place [3] on the body, such as the nose, that moves with a joint, which its number names."""

    name: str
    joint: int
    position: Array


@dataclass(frozen=True)
class Skeleton:
    """J joints at rest, in the coordinates of the mesh that they belong to.

    Attributes:
        names: of the joints.
        parents: the number of each joint's parent, -1 for none.
        positions: [J, 3] float64.
        turns: [J, 3, 3] float64, rotations from each joint's own axes.
        landmarks: further places on the body.
        openpose: OpenPose's keypoint -> the joint or landmark that it is, where the names do not show it.
        skin: None where only joints are known.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    positions: Array
    turns: Array
    landmarks: tuple[Landmark, ...] = ()
    openpose: tuple[tuple[str, str], ...] = ()
    skin: Skin | None = None

    def moved(self, turn: Array, scale: float, shift: Array) -> Skeleton:
        """Return the skeleton with every place p at scale · turn p + shift; turn [3, 3] may mirror, and then joints stay
        right-handed by mirroring their own first axis."""

        def place(points: Array) -> Array:
            return scale * points @ turn.T + shift

        mirrors = float(np.linalg.det(turn)) < 0
        turns = turn @ self.turns @ (np.diag([-1.0, 1.0, 1.0]) if mirrors else np.eye(3))
        skin = self.skin
        if skin is not None:
            faces = skin.faces[:, ::-1] if mirrors else skin.faces
            skin = replace(skin, vertices=place(skin.vertices), faces=faces)
        landmarks = tuple(replace(each, position=place(each.position)) for each in self.landmarks)
        return replace(self, positions=place(self.positions), turns=turns, landmarks=landmarks, skin=skin)

    def in_order(self) -> list[int]:
        """Return the joints, parents before children. Raises ValueError for one that is its own ancestor."""
        children: dict[int, list[int]] = {}
        for joint, parent in enumerate(self.parents):
            children.setdefault(parent, []).append(joint)
        found = list(children.get(-1, []))
        for joint in found:
            found += children.get(joint, [])
        if len(found) < len(self.names):
            lost = min(set(range(len(self.names))) - set(found))
            raise ValueError(f"joint {self.names[lost]!r} is its own ancestor")
        return found

    @property
    def bones(self) -> tuple[Array, Array, Array]:
        """Bones: the joint [B] that moves each, and its ends [B, 3] and [B, 3]; that of a joint without children is a point."""
        owners = [*(parent for parent in self.parents if parent >= 0)]
        ends = [joint for joint, parent in enumerate(self.parents) if parent >= 0]
        tips = sorted(set(range(len(self.names))) - set(owners))
        joints = np.array([*owners, *tips])
        return joints, self.positions[joints], self.positions[np.array([*ends, *tips])]


def strongest(shares: Array) -> tuple[Array, Array]:
    """Return the joints [V, 4] and weights [V, 4], summing to 1, of the largest of shares [V, J]; joints without weight are 0.

    A vertex without shares is moved by joint 0.
    """
    count = min(MOST, shares.shape[1])
    joints = np.argsort(-shares, axis=1, kind="stable")[:, :count]
    weights = np.take_along_axis(shares, joints, axis=1).astype(np.float64)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), np.eye(1, count))
    joints = np.where(weights > 0, joints, 0)
    pad = ((0, 0), (0, MOST - count))
    return np.pad(joints, pad), np.pad(weights, pad)
