"""A body made by hand for the tests: 1.8 high, y up, the front to +z, one arm raised, so that no side is like another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import trimesh

JOINTS: dict[str, tuple[str | None, tuple[float, float, float]]] = {
    "pelvis": (None, (0.0, 0.95, 0.0)),
    "left_hip": ("pelvis", (0.10, 0.90, 0.0)),
    "left_knee": ("left_hip", (0.12, 0.50, 0.02)),
    "left_ankle": ("left_knee", (0.13, 0.08, -0.02)),
    "right_hip": ("pelvis", (-0.10, 0.90, 0.0)),
    "right_knee": ("right_hip", (-0.12, 0.50, 0.02)),
    "right_ankle": ("right_knee", (-0.13, 0.08, -0.02)),
    "chest": ("pelvis", (0.0, 1.25, -0.02)),
    "left_shoulder": ("chest", (0.19, 1.40, -0.03)),
    "left_elbow": ("left_shoulder", (0.42, 1.30, -0.05)),
    "left_wrist": ("left_elbow", (0.62, 1.20, 0.03)),
    "right_shoulder": ("chest", (-0.19, 1.40, -0.03)),
    "right_elbow": ("right_shoulder", (-0.40, 1.52, 0.0)),
    "right_wrist": ("right_elbow", (-0.48, 1.75, 0.08)),
    "head": ("chest", (0.0, 1.55, -0.01)),
}
"""Joint -> its parent and its place."""
FACE = {
    "nose": (0.0, 1.62, 0.17),
    "left_eye": (0.07, 1.70, 0.12),
    "right_eye": (-0.07, 1.70, 0.12),
    "left_ear": (0.15, 1.65, 0.0),
    "right_ear": (-0.15, 1.65, 0.0),
}
PLACES = {name: place for name, (_, place) in JOINTS.items()} | FACE


def write_body(folder: Path, *, face: bool = True) -> tuple[str, str]:
    """Write the mesh and its skeleton; returns their paths."""
    bones = [
        trimesh.creation.cylinder(0.05, segment=[JOINTS[parent][1], place], sections=12)
        for parent, place in JOINTS.values()
        if parent
    ]
    balls = [trimesh.creation.icosphere(2, 0.06).apply_translation(place) for _, place in JOINTS.values()]
    head = trimesh.creation.icosphere(3, 0.15).apply_translation((0, 1.66, 0))
    mesh = trimesh.util.concatenate([*bones, *balls, head])
    mesh.export(folder / "body.obj")
    rows = [{"name": name, "parent": parent, "position": place} for name, (parent, place) in JOINTS.items()]
    landmarks = [{"name": name, "joint": "head", "position": place} for name, place in FACE.items()]
    document = {"joints": rows, "landmarks": landmarks if face else []}
    (folder / "joints.json").write_text(json.dumps(document))
    return str(folder / "body.obj"), str(folder / "joints.json")


def in_the_world(place: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """A place of the file, turned as a run turns it: what is z there faces +x, and y is up."""
    x, y, z = np.moveaxis(np.asarray(place, dtype=np.float64), -1, 0)
    return np.stack([z, x, y], axis=-1)
