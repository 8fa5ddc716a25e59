"""Skeletons of body models: SMPL, SMPL-H and SMPL-X, from .npz files that stay with whoever has licensed them."""

from __future__ import annotations

import numpy as np

from scene.meshes.npz import BODY, MAX_ROWS, Wanted, arrays
from scene.skeleton.skeleton import Landmark, Skeleton, Skin, strongest

WANTED: Wanted = {
    **BODY,
    "J_regressor": ((1_000, -1), "f"),
    "kintree_table": ((2, -1), "iu"),
    "weights": ((MAX_ROWS, -1), "f"),
}
BODY_JOINTS = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2"),
    *("left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar"),
    *("right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
    *("left_wrist", "right_wrist"),
)
HANDS = tuple(
    f"{side}_{finger}{knuckle}"
    for side in ("left", "right")
    for finger in ("index", "middle", "pinky", "ring", "thumb")
    for knuckle in (1, 2, 3)
)
JOINTS = {
    24: (*BODY_JOINTS, "left_hand", "right_hand"),
    52: (*BODY_JOINTS, *HANDS),
    55: (*BODY_JOINTS, "jaw", "left_eye_smplhf", "right_eye_smplhf", *HANDS),
}
"""Number of joints, of SMPL, SMPL-H and SMPL-X -> their names."""
FACES = {
    6890: {"nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583},
    10475: {"nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6},
}
"""Number of vertices, of SMPL and SMPL-H, and of SMPL-X -> the vertices that are keypoints of the face."""


def read_smpl_skeleton(path: str) -> Skeleton:
    """Read the template of a body model, and its joints and weights. Raises ValueError, one sentence, for other files."""
    found = arrays(path, WANTED)
    vertices, regressor = found["v_template"].astype(np.float64), found["J_regressor"].astype(np.float64)
    shares, parents = found["weights"].astype(np.float64), found["kintree_table"][0].astype(np.int64)
    count = len(regressor)
    sizes = {
        "J_regressor": (regressor.shape, (count, len(vertices))),
        "weights": (shares.shape, (len(vertices), count)),
        "kintree_table": (parents.shape, (count,)),
    }
    for name, (size, wanted) in sizes.items():
        if size != wanted:
            raise ValueError(f"its {name} has the size {size}, but {wanted} is needed")
    if count not in JOINTS:
        known = ", ".join(map(str, JOINTS))
        raise ValueError(f"it has {count} joints, but SMPL, SMPL-H and SMPL-X have {known}")
    # The root's parent is -1, or that in 32 bits without a sign.
    parents = np.where((parents < 0) | (parents >= 2**31), -1, parents)
    if parents.max() >= count:
        raise ValueError(f"its kintree_table names joint {parents.max()}, but there are {count}")
    head = JOINTS[count].index("head")
    landmarks = [
        Landmark(name, head, vertices[vertex]) for name, vertex in FACES.get(len(vertices), {}).items()
    ]
    return Skeleton(
        JOINTS[count],
        tuple(parents.tolist()),
        regressor @ vertices,
        np.tile(np.eye(3), (count, 1, 1)),
        tuple(landmarks),
        skin=Skin(vertices, found["f"].astype(np.int64), *strongest(shares)),
    )
