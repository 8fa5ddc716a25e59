"""Skeletons: files written and read, those of glTF and of body models, poses, keypoints by name, and mistakes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from config import Config
from exporting.formats import write_mesh
from scene.axes import turn
from scene.meshes.sample import sample_mesh
from scene.skeleton.__main__ import main
from scene.skeleton.file import read_skeleton
from scene.skeleton.openpose import FACE as FACE_POINTS
from scene.skeleton.openpose import KEYPOINTS, keypoints_of
from scene.skeleton.placed import load_skeleton
from scene.skeleton.skeleton import Skeleton
from tests.bodies import FACE, JOINTS, PLACES, write_body
from tests.changed import changed
from tests.exporting.test_rig import textured
from utils.rng import Draws

MIXAMO = {
    "pelvis": "Hips", "chest": "Spine2", "head": "Head",
    **{f"{side}_{part}": f"{side.title()}{name}" for side in ("left", "right") for part, name in (
        ("hip", "UpLeg"), ("knee", "Leg"), ("ankle", "Foot"), ("shoulder", "Arm"), ("elbow", "ForeArm"), ("wrist", "Hand"))},
}  # fmt: skip
STYLES = {
    "Mixamo": lambda name: f"mixamorig:{MIXAMO[name]}",
    "three.js": lambda name: f"mixamorig{MIXAMO[name]}_07",
    "VRM": lambda name: {
        "left_hip": "J_Bip_L_UpperLeg", "left_knee": "J_Bip_L_LowerLeg", "left_shoulder": "leftUpperArm",
        "left_elbow": "leftLowerArm", "left_wrist": "J_Bip_L_Hand", "right_hip": "thigh.R", "right_knee": "DEF-shin.R",
        "right_shoulder": "upperarm_r", "right_elbow": "RElbow", "right_wrist": "Bip01 R Hand", "head": "J_Bip_C_Head",
        "right_ankle": "calf_r end", "pelvis": "Hips", "chest": "J_Bip_C_Chest", "left_ankle": "foot_l",
    }[name],
}  # fmt: skip


def joints_only(names: dict[str, str] | None = None, **more: np.ndarray) -> Skeleton:
    """The body's joints under other names, and further ones."""
    order = list(JOINTS)
    positions = [place for _, place in JOINTS.values()]
    return Skeleton(
        (*((names or {}).get(name, name) for name in order), *more),
        (
            *(-1 if parent is None else order.index(parent) for parent, _ in JOINTS.values()),
            *(0 for _ in more),
        ),
        np.array([*positions, *more.values()]),
        np.tile(np.eye(3), (len(order) + len(more), 1, 1)),
    )


@pytest.mark.parametrize("style", STYLES)
def test_keypoints_are_found_by_other_programs_names(style: str) -> None:
    """Without a face, whose place is that of an average head; collar bones are no shoulders."""
    names = {name: STYLES[style](name) for name in JOINTS}
    collars = {f"mixamorig:{side}Shoulder": np.zeros(3) for side in ("Left", "Right")}
    found = keypoints_of(joints_only(names, **collars))
    assert found.missing == (("right_ankle",) if style == "VRM" else ())
    assert found.assumed == FACE_POINTS
    for name in set(KEYPOINTS) - set(FACE) - {"neck", *found.missing}:
        np.testing.assert_array_equal(found.positions[KEYPOINTS.index(name)], PLACES[name])
    nose, left, right = (found.positions[KEYPOINTS.index(name)] for name in ("nose", "left_ear", "right_ear"))
    assert nose[2] > 0.08
    assert left[0] - right[0] == pytest.approx(0.8 * 0.55 * 0.38, rel=1e-6)


def command(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def test_a_gltf_skin_gives_its_skeleton_in_any_pose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    obj, joints = write_body(tmp_path)
    made = read_skeleton(joints).moved(turn("y,z").numpy().T, 1.0, np.zeros(3))
    write_mesh(tmp_path / "body.glb", textured(obj).bound(made))
    for pose in ("", "t", "a"):
        out = tmp_path / f"out{pose}.json"
        assert command(tmp_path / "body.glb", "-o", out, *(["--pose", pose] if pose else [])) == 0
        read = read_skeleton(str(out))
        assert read.names == made.names
        assert read.parents == made.parents
        assert read.skin is not None
        places = dict(zip(read.names, read.positions))
        cloud = sample_mesh(str(out.with_suffix(".npz")), 2000, torch.Generator().manual_seed(0))
        if not pose:
            np.testing.assert_allclose(read.positions, [PLACES[name] for name in read.names], atol=1e-6)
            np.testing.assert_allclose(read.skin.vertices, trimesh.load_mesh(obj).vertices, atol=1e-6)
            assert cloud.colors is not None
            assert bool((cloud.colors == 1).all())
            continue
        way = np.array([1.0, 0.0, 0.0]) if pose == "t" else np.array([0.5**0.5, -(0.5**0.5), 0.0])
        for side in (1, -1):
            arm = ["shoulder", "elbow", "wrist"]
            at = [places[f"{'left' if side > 0 else 'right'}_{part}"] for part in arm]
            before = [np.array(PLACES[f"{'left' if side > 0 else 'right'}_{part}"]) for part in arm]
            for one, other, old, older in zip(at, at[1:], before, before[1:]):
                length = np.linalg.norm(older - old)
                np.testing.assert_allclose(other - one, length * way * (side, 1, 1), atol=1e-6)
            # The hand goes with its joint.
            hand = np.linalg.norm(read.skin.vertices - at[2], axis=1)
            own = np.linalg.norm(np.asarray(trimesh.load_mesh(obj).vertices) - before[2], axis=1)
            np.testing.assert_allclose(hand[own < 0.061], own[own < 0.061], atol=0.02)
        np.testing.assert_allclose(places["left_ankle"], PLACES["left_ankle"], atol=1e-6)
    assert "15 joints, and out.npz with a skin of" in caplog.text
    assert "; by an average head: nose, right_eye, left_eye, right_ear, left_ear." in caplog.text


def test_a_skeleton_of_another_mesh_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    obj, joints = write_body(tmp_path)
    made = read_skeleton(joints).moved(turn("y,z").numpy().T, 1.0, np.zeros(3))
    write_mesh(tmp_path / "body.glb", textured(obj).bound(made))
    assert command(tmp_path / "body.glb", "-o", tmp_path / "t.json", "--pose", "t") == 0
    (tmp_path / "cm.json").write_text(Path(joints).read_text().replace("0.95", "95"))

    def reported(mesh: str, skeleton: str) -> str:
        caplog.clear()
        keys = {
            "init_shape": str(tmp_path / mesh),
            "skeleton": str(tmp_path / skeleton),
            "init_num_pts": 3000,
        }
        load_skeleton(changed(Config(), **keys), Draws(0))
        return caplog.text

    assert reported("body.obj", "joints.json") == reported("t.npz", "t.json") == ""
    assert "t.json': its skin has another shape or pose than" in reported("body.glb", "t.json")
    assert "its joint 'pelvis' lies outside of" in reported("body.obj", "cm.json")


def body_model(path: Path, joints: int = 24, **changes: np.ndarray) -> Path:
    """A model of SMPL's kind whose joints are its first vertices, 0.1 apart."""
    rng = np.random.default_rng(0)
    vertices = rng.random((joints + 6, 3)) * 0.01 + np.arange(joints + 6)[:, None] * 0.1
    parents = np.arange(joints, dtype=np.uint32) - np.uint32(1)  # that of the root is 4294967295
    arrays = {
        "v_template": vertices,
        "f": np.arange(joints + 6, dtype=np.uint32)[: (joints + 6) // 3 * 3].reshape(-1, 3),
        "J_regressor": np.eye(joints, joints + 6),
        "kintree_table": np.stack([parents, np.arange(joints, dtype=np.uint32)]),
        "weights": np.eye(joints + 6, joints),
    }
    np.savez(path, **arrays | changes)
    return path


def test_a_body_model_gives_its_skeleton(tmp_path: Path) -> None:
    for joints, name in ((24, "right_hand"), (55, "right_thumb3")):
        model = body_model(tmp_path / "model.npz", joints)
        assert command(model, "-o", tmp_path / "body.json") == 0
        found = read_skeleton(str(tmp_path / "body.json"))
        assert found.parents == tuple(range(-1, joints - 1))
        assert (found.names[0], found.names[15], found.names[-1]) == ("pelvis", "head", name)
        vertices = np.load(model)["v_template"]
        np.testing.assert_allclose(found.positions, vertices[:joints])
        assert found.skin is not None
        np.testing.assert_allclose(found.skin.vertices, vertices, atol=1e-6)
        assert found.skin.joints[7, 0] == 7
        assert len(sample_mesh(str(model), 10, torch.Generator())) == 10


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(source: Path, *flags: str) -> str:
        assert command(source, "-o", tmp_path / "x.json", *flags) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n")
    assert "is a pickle, which is not read" in said(tmp_path / "x.pkl")
    assert "is not there" in said(tmp_path / "gone.glb")
    pickled = body_model(tmp_path / "a.npz", J_regressor=np.array({"not": "numbers"}, dtype=object))
    assert "has its 'J_regressor' as a pickled object" in said(pickled)
    assert "it has 30 joints, but SMPL" in said(body_model(tmp_path / "b.npz", 30))
    circle = body_model(tmp_path / "c.npz", kintree_table=np.zeros((2, 24), int))
    assert "joint 'pelvis' is its own ancestor" in said(circle, "--pose", "t")
    (tmp_path / "d.npz").write_bytes(pickled.read_bytes()[:900])
    assert "cannot be read as .npz" in said(tmp_path / "d.npz")
    row = {"name": "hips", "parent": None, "position": [0, 0, 0]}
    for document, reason in (
        ({}, "its 'joints' must be a list of objects"),
        ({"joints": [row, row]}, "two of its joints are named 'hips'"),
        ({"joints": [row | {"parent": "hips"}]}, "joint 'hips' is its own ancestor"),
        (
            {"joints": [row | {"position": [0, "1", 0]}]},
            "joint 'hips' has position [0, '1', 0], but 3 finite",
        ),
        ({"joints": [row | {"parent": "back"}]}, "parent 'back', which is no joint"),
        ({"joints": [row], "openpose": {"left_toe": "hips"}}, "its 'openpose' has 'left_toe'"),
        ({"joints": [row], "skin": "../x.npz"}, "must be the name of a file beside it"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(document))
        with pytest.raises(ValueError, match=r"bad\.json' cannot be read as a skeleton: ") as error:
            read_skeleton(str(tmp_path / "bad.json"))
        assert reason in str(error.value)
