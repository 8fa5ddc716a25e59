from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from scene.meshes.sample import sample_mesh

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)


def seen(path: Path) -> tuple[np.ndarray, np.ndarray]:
    cloud = sample_mesh(str(path), 400, torch.Generator().manual_seed(0))
    assert cloud.colors is not None
    return cloud.points.numpy(), cloud.colors.numpy()


def written(
    path: Path,
    columns: dict[str, object],
    faces: list[tuple[object, ...]],
    keys: list[tuple[str, str]],
    **how: object,
) -> Path:
    """Write the square with further properties of vertices, and faces of properties `keys`."""
    values = {name: np.asarray(value) for name, value in columns.items()}
    table = np.empty(4, dtype=[*((n, "<f4") for n in "xyz"), *((n, v.dtype) for n, v in values.items())])
    for name, value in [*zip("xyz", SQUARE.T), *values.items()]:
        table[name] = value
    polygons = np.empty(
        len(faces), dtype=[(name, "O" if kind.startswith("list ") else kind) for name, kind in keys]
    )
    for row, face in enumerate(faces):
        polygons[row] = tuple(np.asarray(item) if isinstance(item, list) else item for item in face)
    lists = {name: kind.removeprefix("list ") for name, kind in keys if kind.startswith("list ")}
    elements = [PlyElement.describe(table, "vertex"), PlyElement.describe(polygons, "face", val_types=lists)]
    PlyData(elements, **how).write(path)  # type: ignore[arg-type]
    return path


CORNERS = [("vertex_indices", "list i4")]
HALVES = [([0, 1, 2],), ([0, 2, 3],)]


@pytest.mark.parametrize("text", [False, True])
def test_colours_of_vertices_beside_places_without_a_texture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bool
) -> None:
    columns = {"diffuse_red": np.full(4, 255, np.uint8), "diffuse_green": np.zeros(4, np.uint8)}
    columns |= {"diffuse_blue": np.zeros(4, np.uint8), "s": SQUARE[:, 0], "t": SQUARE[:, 1]}
    for faces in ([([0, 1, 2, 3],)], HALVES, [([0, 1, 2],), ([0, 2],), ([0, 2, 3],)]):
        caplog.clear()
        points, colors = seen(written(tmp_path / "x.ply", columns, faces, CORNERS, text=text))
        np.testing.assert_array_equal(colors, np.tile([1, 0, 0], (400, 1)))
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=2, range=[[0, 1], [0, 1]])
        assert counts.min() > 80
        assert caplog.messages == [
            f"{str(tmp_path / 'x.ply')!r}: not used: vertex property 's', vertex property 't'."
        ]


def test_textures_of_corners_by_number_and_one_that_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a b.png")
    comments = ["TextureFile a b.png", "TextureFile gone.png"]
    keys = [*CORNERS, ("texcoord", "list f4"), ("texnumber", "i4")]
    faces = [([0, 1, 2], [0.6, 0.5, 0.9, 0.5, 0.7, 0.5], 0), ([0, 2, 3], [0.0] * 6, 1)]
    columns = {name: np.full(4, 51, np.uint8) for name in ("red", "green", "blue")}
    points, colors = seen(written(tmp_path / "x.ply", columns, faces, keys, comments=comments))
    expected = np.where(points[:, :1] > points[:, 1:2], [0, 1, 0], [0.2, 0.2, 0.2])
    np.testing.assert_allclose(colors, expected, atol=1e-6)
    assert caplog.messages == [
        f"{str(tmp_path / 'x.ply')!r}: texture 'gone.png' is not there, so the plain colour is used instead."
    ]


def test_colours_of_faces_and_what_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = [*CORNERS, *((name, "u1") for name in ("red", "green", "blue")), ("flags", "i4")]
    path = written(
        tmp_path / "x.ply",
        {"quality": np.zeros(4)},
        [([0, 1, 2], 255, 0, 0, 1), ([0, 2, 3], 0, 0, 255, 1)],
        keys,
    )
    points, colors = seen(path)
    np.testing.assert_array_equal(colors, np.where(points[:, :1] > points[:, 1:2], [1, 0, 0], [0, 0, 1]))
    assert caplog.messages == [f"{str(path)!r}: not used: vertex property 'quality', face property 'flags'."]


def test_what_shap_e_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header += "element face 2\nproperty list uchar int vertex_index\nend_header\n"
    body = b"".join(struct.pack("<3f3B", *corner, 255, 102, 0) for corner in SQUARE)
    body += b"".join(struct.pack("<B3I", 3, *face) for [face] in HALVES)
    (tmp_path / "x.ply").write_bytes(header.encode() + body)
    points, colors = seen(tmp_path / "x.ply")
    np.testing.assert_allclose(colors, np.tile([1, 0.4, 0], (400, 1)), atol=1e-6)
    assert float(points.max()) > 0.9
    assert caplog.messages == []
