"""Meshes with a skin: what a reader of glTF makes of them, at rest and bent, against linear blend skinning of its own."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from exporting.formats import write_mesh
from exporting.mesh.textured import TexturedMesh
from exporting.pose import Pose
from exporting.targets import Frame
from scene.axes import OURS, turn
from scene.meshes.gltf import read_gltf
from scene.meshes.gltf_accessors import whole_numbers
from scene.meshes.gltf_file import GltfFile
from scene.skeleton.file import read_skeleton, write_skeleton
from scene.skeleton.skeleton import Skeleton, Skin, strongest
from tests.bodies import JOINTS, in_the_world, write_body

NAMES = list(JOINTS)
QUARTER = [np.sin(np.pi / 4), 0.0, 0.0, np.cos(np.pi / 4)]
"""A quarter turn around a joint's own x axis, as glTF has it."""


def textured(path: str) -> TexturedMesh:
    """A body in the world, white."""
    mesh = trimesh.load_mesh(path)
    count = len(mesh.vertices)
    vertices, normals = (
        in_the_world(each).astype(np.float32) for each in (mesh.vertices, mesh.vertex_normals)
    )
    white = np.full((2, 2, 3), 255, np.uint8)
    places, gaps = np.zeros((count, 2), np.float32), np.zeros((0, 3), np.float32)
    faces = np.asarray(mesh.faces, dtype=np.int64)
    return TexturedMesh(vertices, normals, places, faces, white, gaps, np.arange(count))


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> tuple[TexturedMesh, Skeleton]:
    mesh, joints = write_body(tmp_path_factory.mktemp("body"))
    return textured(mesh), read_skeleton(joints).moved(turn("y,z").numpy().T, 1.0, np.zeros(3))


def document_of(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + length]), content[20 + length :]


def bent(path: Path, joint: str, rotation: list[float]) -> Path:
    """The file with another rotation of a joint after its own."""
    document, rest = document_of(path)
    [node] = [node for node in document["nodes"] if node["name"] == joint]
    x, y, z, w = node["rotation"]
    a, b, c, d = rotation
    node["rotation"] = [
        w * a + x * d + y * c - z * b,
        w * b - x * c + y * d + z * a,
        w * c + x * b - y * a + z * d,
        w * d - x * a - y * b - z * c,
    ]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest)) + struct.pack(
        "<I4s", len(text), b"JSON"
    )
    out = path.with_name(f"bent-{path.name}")
    out.write_bytes(head + text + rest)
    return out


def vertices_of(path: Path) -> np.ndarray:
    [(shape, matrix)] = read_gltf(str(path))
    assert np.array_equal(matrix, np.eye(4))
    return shape.vertices


def weights_of(path: Path) -> np.ndarray:
    """Weights [V, J] in a file, which sum to 1 in whole numbers."""
    file = GltfFile(str(path))
    attributes = file.entry("meshes", 0)["primitives"][0]["attributes"]
    joints, whole = (whole_numbers(file, attributes[key]) for key in ("JOINTS_0", "WEIGHTS_0"))
    assert (whole.sum(axis=1) == 65535).all()
    assert (joints[whole == 0] == 0).all()
    dense = np.zeros((len(joints), len(NAMES)))
    np.add.at(dense, (np.arange(len(joints))[:, None], joints), whole / 65535)
    assert ((dense > 0).sum(axis=1) == (whole > 0).sum(axis=1)).all()
    return dense


def below(joint: str) -> list[int]:
    """A joint and those that hang from it."""
    found = [joint]
    for name in found:
        found += [child for child, (parent, _) in JOINTS.items() if parent == name]
    return [NAMES.index(name) for name in found]


def test_a_rigged_mesh_stands_as_without_and_bends_as_linear_blend_skinning_has_it(
    body: tuple[TexturedMesh, Skeleton], tmp_path: Path
) -> None:
    mesh, skeleton = body
    rigged = mesh.bound(skeleton)
    for name, frame in {"y up": None, "ours": Frame(OURS), "left": Frame("y,z,left", 100.0)}.items():
        path = tmp_path / f"{name}.glb"
        assert write_mesh(path, rigged, frame, Pose(2.0, 0.3)) == ""
        write_mesh(tmp_path / "plain.glb", mesh, frame, Pose(2.0, 0.3))
        rest = vertices_of(tmp_path / "plain.glb")
        size = np.ptp(rest, axis=0).max()
        np.testing.assert_allclose(vertices_of(path), rest, atol=1e-6 * size)
        # Its joints lie where the mesh has them, and bones turn in their own axes.
        weights = weights_of(path)
        found = vertices_of(bent(path, "right_elbow", QUARTER))
        matrix = turn((frame or Frame("y,z")).axes).numpy()
        axes = matrix @ turn("y,z").numpy().T
        x = axes @ (np.diag([-1, 1, 1]) if np.linalg.det(axes) < 0 else np.eye(3))[:, 0]
        unit = 1.0 if frame is None else frame.unit
        up = {"y up": [0, 0.3, 0], "ours": [0, 0, 0.3], "left": [0, 0.3, 0]}[name]
        elbow = unit * (2.0 * matrix @ in_the_world(JOINTS["right_elbow"][1]) + up)
        away = rest - elbow
        # A quarter turn around x.
        turned = np.cross(x, away) + (away @ x)[:, None] * x + elbow
        share = weights[:, below("right_elbow")].sum(axis=1)[:, None]
        np.testing.assert_allclose(found, share * turned + (1 - share) * rest, atol=2e-6 * size)
    assert write_mesh(tmp_path / "x.stl", rigged) == "colours and the skin"
    hand = np.linalg.norm(mesh.vertices - in_the_world(JOINTS["right_wrist"][1]), axis=1) < 0.05
    foot = mesh.vertices[:, 2] < 0.3
    assert float(share[hand].min()) > 0.95
    assert float(share[foot].max()) < 0.02


def test_a_skin_is_taken_from_the_body_also_by_what_stands_off_it(
    body: tuple[TexturedMesh, Skeleton], tmp_path: Path
) -> None:
    """A skin of two halves, left and right, written and read: a fatter body has it, and changes from one to the other
    evenly; its joints are two of the hand-made ones."""
    mesh, skeleton = body
    side = (mesh.vertices[:, 1] > 0).astype(np.float64)
    shares = np.zeros((len(side), len(NAMES)))
    shares[:, NAMES.index("left_hip")], shares[:, NAMES.index("right_hip")] = side, 1 - side
    skin = Skin(mesh.vertices.astype(np.float64), mesh.faces, *strongest(shares))
    write_skeleton(tmp_path / "two.json", Skeleton(**vars(skeleton) | {"skin": skin}))
    halves = read_skeleton(str(tmp_path / "two.json"))
    assert halves.names == skeleton.names
    np.testing.assert_allclose(halves.positions, skeleton.positions)
    fat = mesh.vertices + 0.03 * mesh.normals
    write_mesh(tmp_path / "x.glb", TexturedMesh(**vars(mesh) | {"vertices": fat}).bound(halves))
    left = weights_of(tmp_path / "x.glb")[:, NAMES.index("left_hip")]
    clear = np.abs(mesh.vertices[:, 1]) > 0.12
    np.testing.assert_allclose(left[clear], side[clear], atol=0.02)
    assert ((left > 0.1) & (left < 0.9)).sum() > 10
