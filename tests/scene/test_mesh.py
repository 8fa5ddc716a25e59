from __future__ import annotations

import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from scene.meshes.colors import to_linear, to_srgb
from scene.meshes.sample import sample_mesh
from scene.point_cloud import PointCloud
from tests.scene.gltf_files import glb
from tests.scene.meshes import (
    HALVES,
    SQUARE,
    box,
    by_another_program,
    checkerboard,
    exported,
    painted,
    square,
)

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


def sampled(path: str, count: int = 2000, seed: int = 0) -> PointCloud:
    return sample_mesh(path, count, torch.Generator().manual_seed(seed))


def colors_of(cloud: PointCloud) -> np.ndarray:
    assert cloud.colors is not None
    return cloud.colors.numpy()


@pytest.mark.parametrize("suffix", ["obj", "glb", "gltf", "stl", "ply"])
def test_points_lie_on_the_surface_in_every_format(tmp_path: Path, suffix: str) -> None:
    mesh = box((1.0, 2.0, 0.5))
    if suffix == "gltf":
        for name, data in mesh.scene().export(file_type="gltf").items():
            (tmp_path / name).write_bytes(data)
        path = str(tmp_path / "model.gltf")
    else:
        path = exported(mesh, tmp_path / f"box.{suffix}")
    cloud = sampled(path)
    assert cloud.points.shape == (2000, 3)
    assert cloud.points.dtype == torch.float32
    assert cloud.colors is None
    outside = cloud.points.abs() / torch.tensor([0.5, 1.0, 0.25])
    torch.testing.assert_close(outside.amax(dim=1), torch.ones(2000))


def test_points_are_uniform_by_area(tmp_path: Path) -> None:
    # Two triangles of areas 1 and 9, and one that is a line; cells of each by barycentric coordinates.
    corners = [[0, 0, 0], [2, 0, 0], [0, 1, 0], [5, 0, 0], [5, 6, 0], [5, 0, 3], [7, 7, 7]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 6, 6], [3, 4, 5]], process=False)
    points = sampled(exported(mesh, tmp_path / "two.ply"), count=20_000).points.double().numpy()
    counts = []
    for triangle, share in (([0, 1, 2], 0.1), ([3, 4, 5], 0.9)):
        a, b, c = np.array(corners, dtype=np.float64)[triangle]
        mine = points[(points[:, 0] > 4) == (share > 0.5)]
        weights = np.linalg.lstsq(np.stack([b - a, c - a], axis=1), (mine - a).T, rcond=None)[0]
        # The middle lines divide a triangle into four of a quarter of its area each.
        near = [weights[0] > 0.5, weights[1] > 0.5, weights.sum(axis=0) < 0.5]
        quarters = [int(rows.sum()) for rows in near]
        counts += [(n, 5000 * share) for n in (*quarters, len(mine) - sum(quarters))]
    chi_squared = sum((found - expected) ** 2 / expected for found, expected in counts)
    assert chi_squared < 24.3  # 7 degrees of freedom: one seed in a thousand


def test_samples_are_seeded(tmp_path: Path) -> None:
    path = exported(box((1, 1, 1)), tmp_path / "box.glb")
    assert torch.equal(sampled(path).points, sampled(path).points)
    assert not torch.equal(sampled(path).points, sampled(path, seed=1).points)


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_colours_of_vertices_are_interpolated(tmp_path: Path, suffix: str) -> None:
    # Red grows with x, green with y.
    colors = np.column_stack([255 * SQUARE[:, :2], np.zeros(4), np.full(4, 255)]).astype(np.uint8)
    cloud = sampled(exported(square(vertex_colors=colors), tmp_path / f"x.{suffix}"))
    expected = cloud.points.numpy() * [1, 1, 0]
    np.testing.assert_allclose(colors_of(cloud), expected, atol=1e-6)


def test_colours_of_vertices_are_linear_in_gltf_files_of_other_programs(tmp_path: Path) -> None:
    path = exported(square(vertex_colors=[(51, 102, 255, 255)] * 4), tmp_path / "x.glb")
    colors = colors_of(sampled(by_another_program(path)))
    np.testing.assert_allclose(colors, np.tile(to_srgb(np.array([0.2, 0.4, 1.0])), (2000, 1)), atol=1e-6)


def test_colours_of_faces(tmp_path: Path) -> None:
    cloud = sampled(exported(square(face_colors=[RED, BLUE]), tmp_path / "x.ply"))
    x, y, _ = cloud.points.numpy().T
    expected = np.where((x > y)[:, None], [1, 0, 0], [0, 0, 1])
    np.testing.assert_array_equal(colors_of(cloud), expected)


@pytest.mark.parametrize("suffix", ["obj", "glb", "ply"])
@pytest.mark.parametrize("shift", [0, -3, 7])
def test_textures_are_looked_up_and_repeated(tmp_path: Path, suffix: str, shift: int) -> None:
    image, cells = checkerboard()
    mesh = painted(
        SimpleMaterial(image=image, diffuse=RED) if suffix != "glb" else PBRMaterial(baseColorTexture=image)
    )
    mesh.visual.uv = SQUARE[:, :2] + shift
    cloud = sampled(exported(mesh, tmp_path / f"x.{suffix}"))
    column, row, _ = (cloud.points.double().numpy() * 4).T
    near_edge = np.minimum(abs(column - column.round()), abs(row - row.round())) < 1e-4
    expected = cells[row.astype(int), column.astype(int)] / 255
    np.testing.assert_allclose(colors_of(cloud)[~near_edge], expected[~near_edge], atol=1e-6)


def test_a_texture_of_the_whole_square_includes_its_edges(tmp_path: Path) -> None:
    image, cells = checkerboard(cells=2, pixels=1)
    for uv, cell in (((0, 0), (0, 0)), ((1, 0), (0, 1)), ((1, 1), (1, 1))):
        mesh = painted(SimpleMaterial(image=image))
        mesh.visual.uv = np.tile(uv, (4, 1))
        cloud = sampled(exported(mesh, tmp_path / "x.ply"), count=4)
        np.testing.assert_allclose(colors_of(cloud), np.tile(cells[cell] / 255, (4, 1)), atol=1e-6)


def test_gltf_multiplies_texture_base_colour_and_vertices_where_they_are_linear(tmp_path: Path) -> None:
    factor, painting, texel = np.array([0.2, 0.6, 1.0]), np.array([0.4, 1.0, 0.8]), np.array([102, 153, 204])
    image = Image.fromarray(np.tile(texel, (2, 2, 1)).astype(np.uint8))
    mesh = painted(PBRMaterial(baseColorTexture=image, baseColorFactor=[*factor, 1.0]))
    mesh.visual.vertex_attributes["color"] = (
        np.tile([*(255 * painting), 255], (4, 1)).round().astype(np.uint8)
    )
    path = exported(mesh, tmp_path / "x.glb")
    # In a file of trimesh's own the texture hides the rest.
    np.testing.assert_allclose(colors_of(sampled(path)), np.tile(texel / 255, (2000, 1)), atol=1e-6)
    product = to_srgb(factor * painting * to_linear(texel / 255))
    colors = colors_of(sampled(by_another_program(path)))
    np.testing.assert_allclose(colors, np.tile(product, (2000, 1)), atol=1e-6)


def test_plain_materials(tmp_path: Path) -> None:
    (tmp_path / "two.mtl").write_text("newmtl dark\nKd 0.2 0.0 0.0\nnewmtl light\nKd 0.8 0.8 1.0\n")
    text = "mtllib two.mtl\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in SQUARE)
    (tmp_path / "two.obj").write_text(text + "usemtl dark\nf 1 2 3\nusemtl light\nf 1 3 4\n")
    cloud = sampled(str(tmp_path / "two.obj"))
    x, y, _ = cloud.points.numpy().T
    np.testing.assert_allclose(
        colors_of(cloud), np.where((x > y)[:, None], [0.2, 0, 0], [0.8, 0.8, 1]), atol=1e-6
    )
    factor = [0.2, 0.4, 1.0, 1.0]
    path = exported(painted(PBRMaterial(baseColorFactor=factor)), tmp_path / "x.glb")
    np.testing.assert_allclose(colors_of(sampled(path)), np.tile(factor[:3], (2000, 1)), atol=1e-6)
    colors = colors_of(sampled(by_another_program(path)))
    np.testing.assert_allclose(colors, np.tile(to_srgb(np.array(factor[:3])), (2000, 1)), atol=1e-6)


def test_a_mesh_with_colours_in_places_is_grey_elsewhere(tmp_path: Path) -> None:
    right = square()
    right.apply_translation([2, 0, 0])
    scene = trimesh.Scene([square(vertex_colors=[RED] * 4), right])
    cloud = sampled(exported(scene, tmp_path / "x.glb"))
    expected = np.where((cloud.points[:, :1] > 1.5).numpy(), [0.5, 0.5, 0.5], [1.0, 0, 0])
    np.testing.assert_allclose(colors_of(cloud), expected, atol=1e-6)


def test_a_scenes_meshes_are_where_its_nodes_put_them(tmp_path: Path) -> None:
    turn = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1])
    scene = trimesh.Scene()
    scene.add_geometry(square(), node_name="a", geom_name="s")
    far = trimesh.transformations.translation_matrix([10, 0, 0]) @ turn @ np.diag([3.0, 3.0, 3.0, 1.0])
    scene.graph.update("parent", scene.graph.base_frame, matrix=far)
    inner = trimesh.transformations.translation_matrix([1, 0, 0])
    scene.graph.update("b", "parent", matrix=inner, geometry="s")
    points = sampled(exported(scene, tmp_path / "x.glb"), count=10_000).points.double().numpy()
    first = points[:, 0] < 5
    # The second is 3 by 3, so it has nine tenths of the area.
    assert abs(first.mean() - 0.1) < 0.001
    low, high = points[first].min(axis=0), points[first].max(axis=0)
    np.testing.assert_allclose([low, high], [[0, 0, 0], [1, 1, 0]], atol=0.05)
    # (x, y) in 0..1, moved by 1 along x, enlarged, turned so that x is y and y is -x, moved by 10.
    low, high = points[~first].min(axis=0), points[~first].max(axis=0)
    np.testing.assert_allclose([low, high], [[7, 3, 0], [10, 6, 0]], atol=0.05)


def test_faces_at_vertices_that_are_not_finite_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vertices = np.concatenate([SQUARE, [[np.nan, 0, 0], [1e300, 0, 0]]])
    faces = [*HALVES.tolist(), [0, 1, 4], [1, 2, 5]]
    path = tmp_path / "x.obj"
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        points = sampled(str(path)).points
    assert "2 of 4 faces have vertices that are not finite" in caplog.text
    assert bool(((points >= 0) & (points <= 1)).all())


def ply_text(vertices: np.ndarray, faces: list[list[int]]) -> str:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n"
    header += "".join(f"property float {name}\n" for name in "xyz")
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [f"{x} {y} {z}" for x, y, z in vertices] + [" ".join(map(str, [len(f), *f])) for f in faces]
    return header + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("points.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nv nan 0 0\n"),
        ("line.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"),
        ("line.ply", ply_text(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]), [[0, 1, 2], [1, 1, 1]])),
    ],
)
def test_without_an_area_the_vertices_are_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with caplog.at_level(logging.WARNING):
        cloud = sampled(str(tmp_path / name))
    assert sorted(cloud.points.tolist()) == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    assert "no face with an area: the start is its 3 vertices" in caplog.text
    assert len(sampled(str(tmp_path / name), count=2)) == 2


def test_a_cloud_of_points_in_a_gltf_file_keeps_its_colours(tmp_path: Path) -> None:
    cloud = trimesh.PointCloud(SQUARE, colors=[RED, BLUE, RED, BLUE])
    found = sampled(exported(trimesh.Scene(cloud), tmp_path / "x.glb"))
    np.testing.assert_array_equal(found.points.numpy(), SQUARE)
    np.testing.assert_allclose(colors_of(found), np.tile([[1, 0, 0], [0, 0, 1]], (2, 1)), atol=1e-6)


def test_points_beside_a_mesh_are_left_out(tmp_path: Path) -> None:
    scene = trimesh.Scene([trimesh.PointCloud(SQUARE + 10), square(vertex_colors=[RED] * 4)])
    cloud = sampled(exported(scene, tmp_path / "x.glb"))
    assert float(cloud.points.max()) <= 1
    np.testing.assert_array_equal(colors_of(cloud), np.tile([1, 0, 0], (2000, 1)))


ASSET = {"asset": {"version": "2.0"}}
HUGE = {"accessors": [{"count": 10**9, "componentType": 5126, "type": "VEC3"}]}
DRACO = {"extensionsUsed": ["KHR_draco_mesh_compression"]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.obj", b"", "neither faces nor vertices"),
        ("empty.stl", b"", "neither faces nor vertices|cannot be read as a mesh"),
        ("empty.glb", b"", "cannot be read as glTF 2.0"),
        ("empty.gltf", b"", "cannot be read as glTF 2.0"),
        ("text.gltf", b"[1, 2]", "cannot be read as glTF 2.0"),
        ("deep.gltf", b"[" * 100_000, "cannot be read as glTF 2.0"),
        ("nothing.glb", glb(ASSET), "cannot be read as a mesh|neither faces nor vertices"),
        ("range.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot be read as a mesh"),
        ("range.ply", ply_text(SQUARE, [[0, 1, 9]]).encode(), "a face has vertex 9, but there are 4"),
        ("minus.ply", ply_text(SQUARE, [[0, 1, -1]]).encode(), "cannot be read as a mesh"),
        ("long.glb", struct.pack("<4sIII4s", b"glTF", 2, 2**32 - 1, 2**32 - 8, b"JSON"), "claims 4294967308 bytes"),
        ("count.glb", glb(ASSET | HUGE), "claims 1000000000 values in"),
        ("draco.glb", glb(ASSET | DRACO), "compressed with KHR_draco_mesh_compression"),
        ("bin.gltf", json.dumps(ASSET | {"buffers": [{"uri": "no.bin", "byteLength": 4}]}).encode(), "cannot be"),
        ("count.stl", b"\0" * 80 + struct.pack("<I", 2**32 - 1) + b"\0" * 100, "cannot be read|neither"),
        ("picture.obj", b"\x89PNG\r\n\x1a\n\0\0", "neither faces nor vertices|cannot be read"),
        ("nan.obj", b"v nan 0 0\nv 0 nan 0\nv 0 0 nan\nf 1 2 3\n", "only points that are not finite"),
    ],
)  # fmt: skip
def test_a_broken_file_gets_one_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        sampled(str(path))
    message = str(caught.value)
    assert message.startswith(repr(str(path)))
    assert "\n" not in message
    assert message.endswith(".")


def test_a_mesh_that_nodes_repeat_beyond_all_use_is_refused_before_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(exported(square(), tmp_path / "x.gltf"))
    document = json.loads(path.read_text(encoding="utf-8"))
    [mesh] = [node["mesh"] for node in document["nodes"] if "mesh" in node]
    document["nodes"] = [{"children": list(range(1, 2001))}] + [
        {"mesh": mesh, "name": str(index)} for index in range(2000)
    ]
    document["scenes"] = [{"nodes": [0]}]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert len(sampled(str(path), count=50)) == 50
    monkeypatch.setattr("scene.meshes.sample.MAX_SIZE", 7000)
    monkeypatch.setattr("scene.meshes.sample._part", None)
    with pytest.raises(ValueError, match="it shows 8000 vertices, but a start uses at most 7000"):
        sampled(str(path))


@pytest.mark.parametrize("name", ["../secret.png", "/dev/zero"])
def test_no_file_outside_the_meshs_folder_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    image.save(tmp_path / "secret.png")
    path = exported(painted(SimpleMaterial(image=image, diffuse=BLUE)), folder / "x.obj")
    [library] = folder.glob("*.mtl")
    [picture] = {file.name for file in folder.iterdir()} - {"x.obj", library.name}
    library.write_text(library.read_text(encoding="utf-8").replace(picture, name), encoding="utf-8")
    np.testing.assert_array_equal(colors_of(sampled(path)), np.tile([0, 0, 1], (2000, 1)))


def test_a_texture_of_absurd_size_leaves_the_plain_colour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = Image.new("L", (9000, 9000))
    path = exported(painted(SimpleMaterial(image=image, diffuse=BLUE)), tmp_path / "x.obj")
    with caplog.at_level(logging.WARNING):
        cloud = sampled(path)
    np.testing.assert_array_equal(colors_of(cloud), np.tile([0, 0, 1], (2000, 1)))
    assert "9000 x 9000 pixels" in caplog.text


def test_a_texture_that_cannot_be_read_leaves_the_plain_colour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    path = exported(painted(SimpleMaterial(image=image, diffuse=BLUE)), tmp_path / "x.obj")
    picture = next(file for file in tmp_path.iterdir() if file.suffix in (".png", ".jpg", ".jpeg"))
    picture.write_bytes(picture.read_bytes()[:3000])
    with caplog.at_level(logging.WARNING):
        cloud = sampled(path)
    np.testing.assert_array_equal(colors_of(cloud), np.tile([0, 0, 1], (2000, 1)))
    assert "texture cannot be read" in caplog.text
    for content in (b"", b"nonsense"):
        picture.write_bytes(content)
        np.testing.assert_array_equal(colors_of(sampled(path)), np.tile([0, 0, 1], (2000, 1)))


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    image, _ = checkerboard(cells=2, pixels=2)
    files = {}
    for suffix in ("obj", "glb", "stl", "ply"):
        mesh = (
            painted(PBRMaterial(baseColorTexture=image))
            if suffix == "glb"
            else square(vertex_colors=[RED] * 4)
        )
        files[suffix] = Path(exported(mesh, folder / f"x.{suffix}")).read_bytes()
    return files


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["obj", "glb", "stl", "ply"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_any_damage_gets_points_or_one_sentence(
    sound_files: dict[str, bytes],
    tmp_path: Path,
    suffix: str,
    cut: float,
    changes: list[tuple[float, int]],
) -> None:
    content = bytearray(sound_files[suffix])
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content[: int((2 * cut) * len(content))])
    try:
        cloud = sampled(str(path), count=50)
    except ValueError as error:
        message = str(error)
    else:
        assert 1 <= len(cloud) <= 50
        assert bool(torch.isfinite(cloud.points).all())
        assert cloud.colors is None or bool(((cloud.colors >= 0) & (cloud.colors <= 1)).all())
        return
    assert "\n" not in message
    assert message.startswith(repr(str(path)))


def test_srgb_and_linear_are_inverses_and_meet_known_values() -> None:
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(to_linear(to_srgb(values)), values, atol=1e-9)
    np.testing.assert_allclose(
        to_srgb(np.array([0, 0.0031308, 0.214041, 1])), [0, 0.040450, 0.5, 1], atol=1e-5
    )
