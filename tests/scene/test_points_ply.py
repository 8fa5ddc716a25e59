from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from scene.gaussian_model import GaussianModel
from scene.points_ply import read_points

NAMES = ("red", "green", "blue")
BYTES = np.array([[255, 102, 0], [0, 51, 204]])


def written(path: Path, columns: dict[str, np.ndarray], *, text: bool = False) -> str:
    """Write points with properties beside x, y, z."""
    count = len(next(iter(columns.values()), np.zeros(2)))
    table = np.zeros(count, dtype=[*((n, "<f4") for n in "xyz"), *((n, v.dtype) for n, v in columns.items())])
    table["y"] = np.arange(count)
    for name, values in columns.items():
        table[name] = values
    PlyData([PlyElement.describe(table, "vertex")], text=text).write(path)
    return str(path)


def colors_of(path: str) -> np.ndarray:
    cloud = read_points(path)
    assert cloud.points[:, 1].tolist() == list(range(len(cloud)))
    assert cloud.colors is not None
    return cloud.colors.numpy()


@pytest.mark.parametrize(
    ("kind", "factor", "guess"),
    [
        ("u1", 1, None),
        ("i1", 1, None),
        ("u2", 257, None),
        ("u2", 1, "reach 255 and are taken for 0 to 255"),
        ("i2", 1, "reach 255 and are taken for 0 to 255"),
        ("i4", 1, "reach 255 and are taken for 0 to 255"),
        ("u4", 1, "reach 255 and are taken for 0 to 255"),
        ("i4", 257, "reach 65535 and are taken for 0 to 65535"),
        ("u4", 16843009, "reach 4.29497e+09 and are taken for 0 to 4.29497e+09"),
        ("f4", 1 / 255, None),
        ("f8", 1 / 255, None),
        ("f4", 1, "reach 255 and are taken for 0 to 255"),
        ("f4", 1.003, "reach 255.765 and are taken for 0 to 255"),
        ("f8", 257, "reach 65535 and are taken for 0 to 65535"),
    ],
)
def test_colours_of_every_type_and_range(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, factor: float, guess: str | None
) -> None:
    values = (BYTES * factor).astype("u1").view("i1") if kind == "i1" else (BYTES * factor).astype(kind)
    path = written(tmp_path / "x.ply", dict(zip(NAMES, values.T)))
    np.testing.assert_allclose(colors_of(path), BYTES / 255, atol=3e-3)
    expected = [] if guess is None else [f"{path!r}: its colours (red, green, blue) {guess}."]
    assert caplog.messages == expected


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        ("r", "g", "b"),
        ("diffuse_red", "diffuse_green", "diffuse_blue"),
        ("Red", "Green", "Blue"),
        ("R", "G", "B"),
        ("DIFFUSE_RED", "DIFFUSE_GREEN", "DIFFUSE_BLUE"),
        ("scalar_R", "scalar_G", "scalar_B"),
    ],
)
def test_colours_of_every_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]
) -> None:
    path = written(tmp_path / "x.ply", dict(zip(names, BYTES.T.astype(np.uint8))))
    np.testing.assert_allclose(colors_of(path), BYTES / 255, atol=1e-6)
    assert caplog.messages == []


def test_colours_that_pcl_packs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = BYTES @ [1 << 16, 1 << 8, 1]
    for alpha in (0, 1, 127, 255):
        bits = ((alpha << 24) + plain).astype(np.uint32)
        for name, values in (("rgba", bits), ("rgb", bits.view(np.int32)), ("RGB", bits.view(np.float32))):
            path = written(tmp_path / "x.ply", {name: values})
            np.testing.assert_allclose(colors_of(path), BYTES / 255, atol=1e-6, err_msg=f"{name}, {alpha}")
    # As text, and as the number itself.
    path = written(tmp_path / "x.ply", {"rgb": plain.astype(np.uint32).view(np.float32)}, text=True)
    np.testing.assert_allclose(colors_of(path), BYTES / 255, atol=1e-6)
    np.testing.assert_allclose(
        colors_of(written(tmp_path / "x.ply", {"rgb": plain.astype("f4")})), BYTES / 255, atol=1e-6
    )
    assert caplog.messages == []


def test_edges_of_ranges(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def read(value: object, kind: str) -> list[float]:
        caplog.clear()
        columns = dict(zip(NAMES, np.tile(np.array(value, kind), (3, 1))))
        return [float(x) for x in colors_of(written(tmp_path / "x.ply", columns))[:, 0]]

    for kind in ("u1", "u2", "i4", "f4"):
        assert read([0, 0], kind) == [0, 0]
        assert caplog.messages == []
    assert read([1, 1], "f4") == [1, 1]
    assert caplog.messages == []
    # An overshoot is no other range, and neither is one stray.
    assert read([0.5, 1.25], "f4") == [0.5, 1]
    assert "reach 1.25 and are taken for 0 to 1" in caplog.text
    assert read([0.5, 1e9], "f4") == [0.5, 1]
    assert read([-0.5, 1.0], "f4") == [0, 1]
    assert "are negative in places and are taken for 0 there" in caplog.text
    for kind in ("u1", "i4"):
        assert read([0, 1], kind) == pytest.approx([0, 1 / 255])
        assert len(caplog.messages) == 1
        assert "taken for 0 to 255" in caplog.text


def test_what_is_not_understood_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {name: np.zeros(2, np.float32) for name in ("nx", "intensity", "hue", "red", "green")}
    path = written(tmp_path / "x.ply", columns)
    assert read_points(path).colors is None
    names = "intensity, hue, red, green"
    assert caplog.messages == [f"{path!r}: none of its vertex properties is a known colour: {names}."]
    caplog.clear()
    columns |= {"blue": np.zeros(2, np.float32)} | {f"p{i}": np.zeros(2, np.uint8) for i in range(9)}
    assert read_points(written(tmp_path / "x.ply", columns)).colors is not None
    assert caplog.messages == [
        f"{path!r}: its vertex properties intensity, hue, p0, p1, p2, p3, p4, p5 and 3 more are not used."
    ]
    caplog.clear()
    assert read_points(written(tmp_path / "x.ply", {})).colors is None
    edges = PlyElement.describe(np.zeros(3, dtype=[("vertex1", "i4")]), "edge")
    PlyData([PlyData.read(path)["vertex"], edges]).write(tmp_path / "y.ply")
    read_points(tmp_path / "y.ply")
    assert caplog.messages == [f"{str(tmp_path / 'y.ply')!r}: its elements edge are not used."]


def test_gaussians_give_their_base_colours_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    colors = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    GaussianModel.from_points(torch.rand(5, 3), colors, 1).save_ply(tmp_path / "y.ply")
    read = read_points(tmp_path / "y.ply").colors
    assert read is not None
    torch.testing.assert_close(read, colors)
    assert "f_rest_0, f_rest_1" in caplog.text
