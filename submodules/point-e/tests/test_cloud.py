"""Point clouds as files, read again by other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from point_e import PointCloud, PointEError
from point_e.cloud import check_target


@pytest.fixture
def cloud() -> PointCloud:
    rng = torch.Generator().manual_seed(0)
    return PointCloud(
        torch.rand(50, 3, generator=rng) - 0.5, torch.randint(256, (50, 3), generator=rng) / 255
    )


def test_ply_keeps_every_bit(cloud: PointCloud, tmp_path: Path) -> None:
    cloud.save(tmp_path / "new" / "cloud.ply")
    vertices = PlyData.read(str(tmp_path / "new" / "cloud.ply"))["vertex"].data
    assert vertices.dtype.descr == [(n, "<f4") for n in "xyz"] + [
        (n, "|u1") for n in ("red", "green", "blue")
    ]
    points = np.stack([vertices[name] for name in "xyz"], axis=1)
    colors = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    np.testing.assert_array_equal(points, cloud.points)
    np.testing.assert_array_equal(colors.astype(np.float32) / np.float32(255), cloud.colors)


def test_npz_has_openais_keys(cloud: PointCloud, tmp_path: Path) -> None:
    cloud.save(tmp_path / "cloud.NPZ")
    with np.load(tmp_path / "cloud.NPZ") as saved:
        assert set(saved) == {"coords", "R", "G", "B"}
        np.testing.assert_array_equal(saved["coords"], cloud.points)
        np.testing.assert_array_equal(np.stack([saved[c] for c in "RGB"], axis=1), cloud.colors)


@pytest.mark.parametrize("suffix", [".ply", ".npz"])
def test_the_same_cloud_gives_the_same_bytes(cloud: PointCloud, tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        cloud.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cloud.obj", r"must end in \.ply or \.npz, but ends in '\.obj'"),
        ("cloud", r"but ends in ''"),
        ("folder.ply", r"is a folder"),
        ("file/cloud.ply", r"cannot be written"),
    ],
)
def test_where_nothing_can_be_written(cloud: PointCloud, tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "file").touch()
    for attempt in (check_target, cloud.save):
        with pytest.raises(PointEError, match=sentence):
            attempt(tmp_path / name)


def test_looking_leaves_nothing(tmp_path: Path) -> None:
    check_target(tmp_path / "cloud.ply")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["points", "colors"])
def test_what_is_not_finite_leaves_the_old_file(cloud: PointCloud, tmp_path: Path, field: str) -> None:
    path = tmp_path / "cloud.ply"
    path.write_text("old")
    values = getattr(cloud, field).clone()
    values[7, 1] = float("nan")
    with pytest.raises(PointEError, match="not finite"):
        replace(cloud, **{field: values}).save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(cloud: PointCloud, tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_text("old")
    broken = replace(cloud, colors=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="could not broadcast"):
        broken.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
