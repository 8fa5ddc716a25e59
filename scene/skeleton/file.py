"""Files of skeletons: the joints in JSON, and the skin in an .npz file beside it.

docs/steering.md has the format.
"""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from scene.meshes.npz import MAX_ROWS, arrays
from scene.skeleton.openpose import KEYPOINTS
from scene.skeleton.skeleton import MOST, Array, Landmark, Skeleton, Skin
from utils.files import write_bytes, write_text

MAX_JOINTS = 10_000
MAX_BYTES = 16_000_000
"""Largest file of joints: a body has 20 to 200 of them, of 100 bytes each."""
KEYS = ("joints", "landmarks", "openpose", "skin")
UNIT = 1e-3
"""How far the weights of a vertex may be from a sum of 1; they are divided by it."""


def write_skeleton(path: Path, skeleton: Skeleton) -> None:
    """Write the joints at `path`, and the skin, if there is one, as `<name>.npz` beside it."""
    joints = [
        {
            "name": name,
            "parent": None if parent < 0 else skeleton.names[parent],
            "position": position.tolist(),
            "rotation": Rotation.from_matrix(turn).as_quat().tolist(),
        }
        for name, parent, position, turn in zip(
            skeleton.names, skeleton.parents, skeleton.positions, skeleton.turns
        )
    ]
    document: dict[str, Any] = {"joints": joints}
    if skeleton.landmarks:
        document["landmarks"] = [
            {"name": each.name, "joint": skeleton.names[each.joint], "position": each.position.tolist()}
            for each in skeleton.landmarks
        ]
    if skeleton.openpose:
        document["openpose"] = dict(skeleton.openpose)
    if (skin := skeleton.skin) is not None:
        beside = path.with_suffix(".npz")
        document["skin"] = beside.name
        content = io.BytesIO()
        colors = {} if skin.colors is None else {"colors": np.rint(skin.colors * 255).astype(np.uint8)}
        np.savez_compressed(
            content,
            vertices=skin.vertices.astype(np.float32),
            faces=skin.faces.astype(np.uint32),
            joints=skin.joints.astype(np.uint16),
            weights=skin.weights.astype(np.float32),
            **colors,
        )
        write_bytes(beside, content.getvalue())
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_skeleton(path: str) -> Skeleton:
    """Read a skeleton and its skin. Raises FileNotFoundError and ValueError, one sentence each, for what is wrong."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path!r} is not there, but it must be a skeleton.")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("it is no object of JSON")
        found = _skeleton(path, document)
    except (ValueError, RecursionError) as error:  # also those of JSON and UTF-8
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(f"{path!r} cannot be read as a skeleton: {reason}.") from error
    if unused := [key for key in document if key not in KEYS]:
        logging.warning("%r: not used: %s.", path, ", ".join(map(repr, unused)))
    return found


def _skeleton(path: str, document: dict[str, Any]) -> Skeleton:
    rows = _list(document, "joints")
    if not 1 <= len(rows) <= MAX_JOINTS:
        raise ValueError(f"it has {len(rows)} joints, but 1 to {MAX_JOINTS} are needed")
    names = [_text(row, "name", f"joints[{index}]") for index, row in enumerate(rows)]
    numbers = {name: index for index, name in enumerate(names)}
    if len(numbers) < len(names):
        twice = next(name for index, name in enumerate(names) if numbers[name] != index)
        raise ValueError(f"two of its joints are named {twice!r}")

    def number(row: dict[str, Any], key: str, where: str) -> int:
        if (name := _text(row, key, where)) not in numbers:
            raise ValueError(f"{where} has {key} {name!r}, which is no joint")
        return numbers[name]

    joints = list(zip(rows, names))
    parents = [
        -1 if row.get("parent") is None else number(row, "parent", f"joint {name!r}") for row, name in joints
    ]
    positions = np.array([_numbers(row, "position", 3, f"joint {name!r}") for row, name in joints])
    turns = np.stack([_turn(row, f"joint {name!r}") for row, name in joints])
    landmarks = []
    for index, row in enumerate(_list(document, "landmarks") if "landmarks" in document else []):
        where = f"landmarks[{index}]"
        place = np.array(_numbers(row, "position", 3, where))
        landmarks.append(Landmark(_text(row, "name", where), number(row, "joint", where), place))
    openpose = document.get("openpose", {})
    places = {*names, *(each.name for each in landmarks)}
    if not isinstance(openpose, dict):
        raise ValueError("its 'openpose' is no object")
    for key, name in openpose.items():
        if key not in KEYPOINTS:
            raise ValueError(f"its 'openpose' has {key!r}, but the keypoints are {', '.join(KEYPOINTS)}")
        if name not in places:
            raise ValueError(f"its 'openpose' has {name!r} for {key}, which is neither joint nor landmark")
    skin = None
    if document.get("skin") is not None:
        skin = _skin(path, _text(document, "skin", "it"), len(names))
    found = Skeleton(
        tuple(names), tuple(parents), positions, turns, tuple(landmarks), tuple(openpose.items()), skin
    )
    found.in_order()
    return found


def _skin(path: str, name: str, joint_count: int) -> Skin:
    if Path(name).name != name:
        raise ValueError(f"its skin is {name!r}, but must be the name of a file beside it")
    beside = str(Path(path).with_name(name))
    found = arrays(
        beside,
        {
            "vertices": ((MAX_ROWS, 3), "f"),
            "faces": ((MAX_ROWS, 3), "iu"),
            "joints": ((MAX_ROWS, MOST), "iu"),
            "weights": ((MAX_ROWS, MOST), "f"),
            "colors?": ((MAX_ROWS, 3), "u"),
        },
    )
    vertices, faces = found["vertices"].astype(np.float64), found["faces"].astype(np.int64)
    joints, weights = found["joints"].astype(np.int64), found["weights"].astype(np.float64)
    colors = found.get("colors")
    for key, values in (("joints", joints), ("weights", weights), ("colors", colors)):
        if values is not None and len(values) != len(vertices):
            raise ValueError(f"{name!r} has {len(vertices)} vertices, but {len(values)} {key}")
    for key, numbers, count, what in (
        ("faces", faces, len(vertices), "vertices"),
        ("joints", joints, joint_count, "joints"),
    ):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
            raise ValueError(f"{name!r} has {key} of number {numbers.max()}, but there are {count} {what}")
    total = weights.sum(axis=1, keepdims=True)
    if not (np.isfinite(vertices).all() and (weights >= 0).all() and (np.abs(total - 1) < UNIT).all()):
        raise ValueError(f"{name!r} has vertices that are not finite, or weights that do not sum to 1")
    corners = vertices[faces]
    if not np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).any():
        raise ValueError(f"{name!r} has no face with an area")
    return Skin(vertices, faces, joints, weights / total, None if colors is None else colors / 255)


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = document.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"its {key!r} must be a list of objects")
    return rows


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where} has {key} {value!r}, but a name is needed")
    return value


def _numbers(row: dict[str, Any], key: str, count: int, where: str) -> list[float]:
    value = row.get(key)
    if isinstance(value, list) and len(value) == count and all(map(_is_number, value)):
        return [float(each) for each in value]
    raise ValueError(f"{where} has {key} {value!r}, but {count} finite numbers are needed")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _turn(row: dict[str, Any], where: str) -> Array:
    if row.get("rotation") is None:
        return np.eye(3)
    quaternion = _numbers(row, "rotation", 4, where)
    if not any(quaternion):
        raise ValueError(f"{where} has rotation {quaternion}, but a quaternion x, y, z, w is needed")
    return Rotation.from_quat(quaternion).as_matrix()
