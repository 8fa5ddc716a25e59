"""Poses of a skeleton: joints turned, and the skin bent by linear blend skinning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from scene.skeleton.openpose import KEYPOINTS, keypoints_of
from scene.skeleton.skeleton import Array, Skeleton

DROP = {"t": 0.0, "a": 45.0}
"""Poses, and how far their arms point down from the horizontal, in degrees."""
UP = np.array([0.0, 1.0, 0.0])
"""In glTF, and of SMPL and its kin."""
ARM = ("shoulder", "elbow", "wrist")


def posed(skeleton: Skeleton, turns: Mapping[int, Array]) -> Skeleton:
    """Return the skeleton at rest in another pose: `turns` are rotations [3, 3] of some joints in the coordinates of its
    file, each about its joint after those of its ancestors."""
    count = len(skeleton.names)
    matrices, shifts = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3))
    for joint in skeleton.in_order():
        parent, place = skeleton.parents[joint], skeleton.positions[joint]
        before = (np.eye(3), np.zeros(3)) if parent < 0 else (matrices[parent], shifts[parent])
        there = before[0] @ place + before[1]
        matrices[joint] = turns.get(joint, np.eye(3)) @ before[0]
        shifts[joint] = there - matrices[joint] @ place
    places = np.einsum("jab,jb->ja", matrices, skeleton.positions) + shifts
    landmarks = tuple(
        replace(each, position=matrices[each.joint] @ each.position + shifts[each.joint])
        for each in skeleton.landmarks
    )
    skin = skeleton.skin
    if skin is not None:
        moved = np.zeros_like(skin.vertices)
        for joint, weight in zip(skin.joints.T, skin.weights.T):
            moved += weight[:, None] * (
                np.einsum("vab,vb->va", matrices[joint], skin.vertices) + shifts[joint]
            )
        skin = replace(skin, vertices=moved)
    return replace(
        skeleton, positions=places, turns=matrices @ skeleton.turns, landmarks=landmarks, skin=skin
    )


def standing(skeleton: Skeleton, pose: str) -> Skeleton:
    """Return the skeleton, of a file in which y is up, with straight arms to its left and right: level ("t"), or 45 degrees
    lower ("a").

    Raises ValueError for one whose shoulders, elbows and wrists are not known.
    """
    places = dict(zip(KEYPOINTS, keypoints_of(skeleton).positions))
    needed = [f"{side}_{part}" for side in ("left", "right") for part in ARM]
    if lost := [key for key in needed if np.isnan(places[key]).any()]:
        raise ValueError(f"a pose needs {', '.join(lost)}, but no joint has such a name")
    left = _unit(places["left_shoulder"] - places["right_shoulder"])
    up = _unit(UP - (UP @ left) * left)
    drop = np.radians(DROP[pose])
    for side, out in (("left", left), ("right", -left)):
        wanted = np.cos(drop) * out - np.sin(drop) * up
        for first, second in pairwise(ARM):
            # The joint above has moved this one already.
            places = dict(zip(KEYPOINTS, keypoints_of(skeleton).positions))
            start, end = places[f"{side}_{first}"], places[f"{side}_{second}"]
            joint = int(np.linalg.norm(skeleton.positions - start, axis=1).argmin())
            skeleton = posed(skeleton, {joint: _between(_unit(end - start), wanted)})
    return skeleton


def _between(source: Array, target: Array) -> Array:
    """The smallest rotation [3, 3] that takes one unit vector to another."""
    axis = np.cross(source, target)
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        # Opposite ones are taken into each other by half a turn about any axis across.
        across = np.cross(source, np.eye(3)[int(np.abs(source).argmin())])
        return np.eye(3) if source @ target > 0 else Rotation.from_rotvec(np.pi * _unit(across)).as_matrix()
    return Rotation.from_rotvec(axis / length * np.arctan2(length, source @ target)).as_matrix()


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
