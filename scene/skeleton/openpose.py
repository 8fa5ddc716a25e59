"""OpenPose's 18 keypoints of a body, found among the joints of a skeleton."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from scene.skeleton.skeleton import Array, Skeleton

KEYPOINTS = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear"),
)
"""OpenPose's body of 18 keypoints (COCO), in its order."""
FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")
WORDS = {
    "shoulder": ("upperarm", "uparm", "arm", "shoulder"),
    "elbow": ("lowerarm", "forearm", "elbow"),
    "wrist": ("wrist", "hand"),
    "hip": ("upperleg", "upleg", "thigh", "hip"),
    "knee": ("lowerleg", "knee", "shin", "calf", "leg"),
    "ankle": ("ankle", "foot"),
    **{word: (word,) for word in ("nose", "neck", "eye", "ear", "head")},
    "top": ("headtopend", "headtop", "headend", "headnub"),
}
"""Part of a body -> words for it, the surest first. In Mixamo and VRM a shoulder is the collar bone, and an arm begins at the
keypoint; in SMPL it is the keypoint."""
SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
DECORATION = {
    *("mixamorig", "bip", "j", "c", "adj", "face", "def", "org", "cc", "base", "m", "f", "avg"),
    *("joint", "jnt", "bone", "smplhf", "smplx"),
}
"""Parts of names that do not matter: of Mixamo, 3ds Max, VRM, Rigify, Character Creator and SMPL."""
HEAD = {
    "nose": (0.60, 0.0, 0.20),
    "right_eye": (0.45, -0.16, 0.42),
    "left_eye": (0.45, 0.16, 0.42),
    "right_ear": (0.05, -0.40, 0.30),
    "left_ear": (0.05, 0.40, 0.30),
}
"""Where a face is from the joint of the head: to the front, to the left and up, in lengths from that joint to the crown."""
CROWN = 0.55
"""That length in widths between the shoulders, for a skeleton that ends at the head's joint."""
EYE_TURN = np.radians(30)
"""Angle at which an eye looks away from the middle: from 120 degrees beside it, no one sees it."""
HIDDEN = {"nose": -0.1, "eye": -0.1, "ear": -0.5}
"""Cosine between the way a keypoint faces and the way to the camera below which it is not seen."""


@dataclass(frozen=True)
class Keypoints:
    """OpenPose's keypoints of a body in the world.

    Attributes:
        positions: [18, 3] float64, NaN for those that are not there.
        outward: [18, 3] float64, the way that a keypoint of the face faces; 0 for those that are seen from everywhere.
        hidden: [18] float64, the cosine between that and the way to the camera below which it is not seen.
        middle: [3] float64, of the head, from which the way to the camera leads.
        missing: those that are not there.
        assumed: those that were placed by a head's proportions.
    """

    positions: Array
    outward: Array
    hidden: Array
    middle: Array
    missing: tuple[str, ...]
    assumed: tuple[str, ...]


def keypoints_of(skeleton: Skeleton) -> Keypoints:
    """Find the keypoints of a skeleton in a right-handed world.

    Joints and landmarks are found by their names, those of SMPL, SMPL-X, Mixamo, VRM, Rigify, Unreal or OpenPose, unless the
    skeleton names them. The neck is the middle of the shoulders, as in OpenPose's training. A face that has none is placed
    by the proportions of a head.
    """
    places = dict(zip(skeleton.names, skeleton.positions)) | {
        each.name: each.position for each in skeleton.landmarks
    }
    parts = _parts(places)
    found = {key: parts[key] for key in KEYPOINTS if key in parts}
    if "left_shoulder" in found and "right_shoulder" in found:
        found["neck"] = (found["left_shoulder"] + found["right_shoulder"]) / 2
    found |= {key: places[name] for key, name in skeleton.openpose}
    guessed = _face(found, parts) if "head" in parts else {}
    assumed = tuple(key for key in FACE if key not in found and key in guessed)
    found |= {key: guessed[key] for key in assumed}
    nowhere = np.full(3, np.nan)
    positions = np.stack([found.get(key, nowhere) for key in KEYPOINTS])
    missing = tuple(key for key in KEYPOINTS if key not in found)
    return Keypoints(positions, *_facing(found), missing, assumed)


def _parts(places: dict[str, Array]) -> dict[str, Array]:
    """Places of a body's parts, such as 'left_knee' and 'head', by their names; of several the surest, then the first."""
    named: dict[tuple[str, str], Array] = {}
    for name, place in places.items():
        words = [
            word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", re.split(r"[:|]", name)[-1])
        ]
        sides = [SIDES[word] for word in words if word in SIDES]
        rest = "".join(word for word in words if word not in SIDES and word not in DECORATION)
        named.setdefault((sides[0] if sides else "", rest), place)
    found = {}
    for side in ("left", "right", ""):
        for part, surest in WORDS.items():
            if there := [named[side, word] for word in surest if (side, word) in named]:
                found[f"{side}_{part}".lstrip("_")] = there[0]
    return found


def _body(found: dict[str, Array]) -> tuple[Array, Array, Array] | None:
    """Unit vectors to a body's front, to its left and up, from shoulders and hips; None if they are not all there."""
    corners = [f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "hip")]
    if not all(corner in found for corner in corners):
        return None
    left = _unit(found["left_shoulder"] - found["right_shoulder"])
    up = found["neck"] - (found["left_hip"] + found["right_hip"]) / 2
    up = _unit(up - (up @ left) * left)
    return np.cross(left, up), left, up


def _face(found: dict[str, Array], parts: dict[str, Array]) -> dict[str, Array]:
    """Places of a face by the proportions of a head; none without shoulders and hips."""
    if (body := _body(found)) is None:
        return {}
    front, left, up = body
    width = float(np.linalg.norm(found["left_shoulder"] - found["right_shoulder"]))
    length = CROWN * width
    if "top" in parts:
        length, up = float(np.linalg.norm(parts["top"] - parts["head"])), _unit(parts["top"] - parts["head"])
        left = _unit(left - (left @ up) * up)
        front = np.cross(left, up)
    axes = np.stack([front, left, up])
    return {key: parts["head"] + length * (np.array(share) @ axes) for key, share in HEAD.items()}


def _facing(found: dict[str, Array]) -> tuple[Array, Array, Array]:
    """The way [18, 3] that each keypoint faces, the cosines [18] from which it is hidden, and the head's middle [3]."""
    outward, hidden, middle = np.zeros((len(KEYPOINTS), 3)), np.full(len(KEYPOINTS), -2.0), np.zeros(3)
    there, body = [found[key] for key in FACE if key in found], _body(found)
    if {"nose", "left_ear", "right_ear"} <= {*found}:
        middle = (found["left_ear"] + found["right_ear"]) / 2
        left = _unit(found["left_ear"] - found["right_ear"])
        front = found["nose"] - middle
        front = _unit(front - (front @ left) * left)
    elif there and body is not None:
        middle, (front, left, _) = np.mean(there, axis=0), body
    else:
        return outward, hidden, middle
    eye = np.cos(EYE_TURN) * front, np.sin(EYE_TURN) * left
    faces = {"nose": front, "left_eye": eye[0] + eye[1], "right_eye": eye[0] - eye[1]}
    faces |= {"left_ear": left, "right_ear": -left}
    for key, way in faces.items():
        # Those that are not there are not drawn anyway.
        row = KEYPOINTS.index(key)
        outward[row], hidden[row] = way, HIDDEN[key.split("_")[-1]]
    return outward, hidden, middle


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
