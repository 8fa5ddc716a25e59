from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from scene.gaussian_model import GaussianModel
from scene.ply import has_faces, read_gaussians, write_gaussians


def random_raw(count: int, degree: int, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = {"xyz": (3,), "f_dc": (1, 3), "f_rest": ((degree + 1) ** 2 - 1, 3)}
    shapes |= {"opacity": (1,), "scaling": (3,), "rotation": (4,)}
    return {name: torch.randn(count, *shape, generator=rng) for name, shape in shapes.items()}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 17])
def test_round_trip_is_exact(tmp_path: Path, degree: int, count: int) -> None:
    raw = random_raw(count, degree)
    write_gaussians(tmp_path / "x.ply", raw)
    loaded = read_gaussians(tmp_path / "x.ply")
    assert {name: tensor.shape for name, tensor in loaded.items()} == {n: t.shape for n, t in raw.items()}
    assert all(torch.equal(raw[name], loaded[name]) for name in raw)


def test_layout_is_inrias(tmp_path: Path) -> None:
    raw = random_raw(5, 3)
    write_gaussians(tmp_path / "x.ply", raw)
    header, body = (tmp_path / "x.ply").read_bytes().split(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 5"]
    names = [line.split()[2] for line in lines[3:]]
    assert all(line.split()[:2] == ["property", "float"] for line in lines[3:])
    expected = [
        *"xyz",
        "nx",
        "ny",
        "nz",
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(45)),
    ]
    expected += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert names == expected
    table = np.frombuffer(body, "<f4").reshape(5, 62)
    column = {name: table[:, index] for index, name in enumerate(names)}
    assert np.array_equal(column["nx"], np.zeros(5))
    assert np.array_equal(column["f_dc_2"], raw["f_dc"][:, 0, 2])
    # All harmonics of red come first, then green's, then blue's.
    assert np.array_equal(column["f_rest_3"], raw["f_rest"][:, 3, 0])
    assert np.array_equal(column["f_rest_16"], raw["f_rest"][:, 1, 1])
    assert np.array_equal(column["f_rest_44"], raw["f_rest"][:, 14, 2])
    assert np.array_equal(column["rot_0"], raw["rotation"][:, 0])


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ply", "b.ply"):
        write_gaussians(tmp_path / name, random_raw(9, 1))
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert len(os.listdir(tmp_path)) == 2


def test_other_programs_order_and_types_are_read(tmp_path: Path) -> None:
    raw = random_raw(4, 1)
    write_gaussians(tmp_path / "x.ply", raw)
    vertices = PlyData.read(tmp_path / "x.ply")["vertex"].data
    names = [name for name in reversed(vertices.dtype.names) if not name.startswith("n")]
    other = np.empty(4, dtype=[(name, ">f8") for name in names] + [("extra", "u1")])
    for name in names:
        other[name] = vertices[name]
    for text in (False, True):
        PlyData([PlyElement.describe(other, "vertex")], text=text, byte_order=">").write(tmp_path / "y.ply")
        loaded = read_gaussians(tmp_path / "y.ply")
        assert all(torch.equal(raw[name], loaded[name]) for name in raw)


def variant(path: Path, raw: dict[str, Tensor], without: str = "", **extra: np.ndarray) -> Path:
    """The file of another program: `raw` without the properties of a prefix, and with others after them."""
    write_gaussians(path, raw)
    data = PlyData.read(path, mmap=False)["vertex"].data
    kept = [name for name in data.dtype.names if not without or not name.startswith(without)]
    columns = {name: data[name] for name in kept} | extra
    table = np.empty(len(data), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    camera = np.zeros(1, [("fov", "<f4")])
    parts = [PlyElement.describe(table, "vertex")] + [PlyElement.describe(camera, "camera")] * bool(extra)
    PlyData(parts, byte_order="<").write(path)
    return path


def test_infinite_opacities_are_opaque_or_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = random_raw(7, 1)
    logits = raw["opacity"][:, 0].numpy().copy()
    logits[[1, 4]], logits[5] = np.inf, -np.inf
    path = variant(tmp_path / "x.ply", raw, "opacity", opacity=logits)
    read = read_gaussians(path)
    kept = [0, 1, 2, 3, 4, 6]
    assert torch.equal(read["xyz"], raw["xyz"][kept])
    assert torch.equal(read["f_rest"], raw["f_rest"][kept])
    assert torch.sigmoid(read["opacity"][[1, 4]]).min() > 0.99999
    assert torch.equal(read["opacity"][[0, 2, 3, 5]], raw["opacity"][[0, 2, 3, 6]])
    opaque, absent, unused = caplog.messages
    assert opaque == f"{str(path)!r}: 2 opacities of +inf are taken as opaque."
    assert absent.startswith(f"{str(path)!r}: 1 of 7 Gaussians have an opacity of -inf")
    assert unused == f"{str(path)!r}: the elements camera are not used."
    write_gaussians(path, read)


def test_the_filter_of_mip_splatting_is_fused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = random_raw(9, 0)
    width = np.linspace(0, 2, 9).astype("f4")
    read = read_gaussians(variant(tmp_path / "x.ply", raw, filter_3D=width))
    # Both as Mip-Splatting's own viewer file has them.
    before, f = raw["scaling"].double().exp() ** 2, torch.from_numpy(width)[:, None].double() ** 2
    opacity = (
        torch.sigmoid(raw["opacity"].double()) * (before / (before + f)).prod(dim=1, keepdim=True).sqrt()
    )
    torch.testing.assert_close(read["scaling"].double().exp(), (before + f).sqrt(), atol=0, rtol=1e-5)
    torch.testing.assert_close(torch.sigmoid(read["opacity"].double()), opacity, atol=1e-7, rtol=1e-5)
    assert "has the filter of Mip-Splatting, filter_3D" in caplog.text


def test_flat_gaussians_and_harmonics_of_degree_4(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = random_raw(5, 0)
    rest = np.arange(5 * 72, dtype="f4").reshape(5, 72)
    columns = {f"f_rest_{i}": rest[:, i] for i in range(72)} | {f"extra_{i}": rest[:, i] for i in range(9)}
    read = read_gaussians(variant(tmp_path / "x.ply", raw, "scale_2", **columns))
    assert torch.equal(read["scaling"][:, :2], raw["scaling"][:, :2])
    ratio = (read["scaling"][:, 2] - raw["scaling"][:, :2].amin(dim=1)).exp()
    torch.testing.assert_close(ratio, torch.full((5,), 0.01))
    # 24 of each channel in the file, of which 15 stay.
    expected = torch.from_numpy(rest).reshape(5, 3, 24)[:, :, :15].transpose(1, 2)
    assert torch.equal(read["f_rest"], expected)
    for words in (
        "has no scale_2",
        "harmonics of degree 4, which are dropped",
        "extra_5 and 3 more are not used",
    ):
        assert words in caplog.text


def test_a_file_that_inrias_viewer_wrote_is_read_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_gaussians(variant(tmp_path / "x.ply", random_raw(5, 2)))
    read_gaussians(variant(tmp_path / "x.ply", random_raw(5, 2), "n"))
    assert not caplog.messages


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "broken.ply"
    write_gaussians(path, random_raw(6, 1))
    content = path.read_bytes()
    if kind == "missing property":
        content = content.replace(b"float opacity", b"float opaqueness")
    elif kind == "absurd count":
        content = content.replace(b"vertex 6\n", b"vertex 99999999999\n")
    elif kind == "too many":
        content = content.replace(b"vertex 6\n", b"vertex 600\n")
    elif kind == "cut off":
        content = content[:-5]
    elif kind == "not ply":
        content = b"\x89PNG\r\n\x1a\n" + b"\x00" * 100
    elif kind == "empty":
        content = b""
    elif kind == "no vertices":
        content = content.replace(b"element vertex", b"element points")
    elif kind == "odd harmonics":
        content = content.replace(b"f_rest_8", b"g_rest_8")
    elif kind == "not finite":
        content = content[:-4] + np.float32(np.inf).tobytes()
    elif kind == "36":
        write_gaussians(path, random_raw(6, 3))
        content = path.read_bytes()
        for i in range(36, 45):
            content = content.replace(b"f_rest_%d" % i, b"g_rest_%d" % i)
    elif kind == "lists":
        content = content.replace(b"float opacity", b"list uchar float opacity")
        content = content.replace(b"binary_little_endian", b"ascii").split(b"end_header")[0] + b"end_header\n"
        content += (b"0 " * 18 + b"1 0" + b" 0" * 7 + b"\n") * 6
    elif kind == "no folder":
        return tmp_path / "missing" / "x.ply"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing property", "lacks the vertex property 'opacity'"),
        ("absurd count", "claims 99999999999 vertices"),
        ("too many", "claims 600 vertices"),
        ("cut off", "cannot be read"),
        ("not ply", "cannot be read"),
        ("empty", "cannot be read"),
        ("no vertices", "no element 'vertex'"),
        ("odd harmonics", "has 8 f_rest properties, but it must have 0, 9, 24, 45 or 72"),
        ("36", "has 36 f_rest properties, but it must have 0, 9, 24, 45 or 72"),
        ("lists", "has lists as 'opacity'"),
        ("not finite", "1 values of 'rot_3'"),
        ("no folder", "not there"),
    ],
)
def test_a_broken_file_gets_one_sentence(tmp_path: Path, kind: str, words: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        read_gaussians(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "mesh"), [(0, False), (1, True)])
def test_a_file_with_faces_is_a_mesh(tmp_path: Path, count: int, mesh: bool) -> None:
    path = tmp_path / "x.ply"
    vertices = np.zeros(3, dtype=[(name, "<f4") for name in "xyz"])
    faces = np.array([([0, 1, 2],)], dtype=[("vertex_indices", "<i4", (3,))])[:count]
    PlyData([PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]).write(path)
    assert has_faces(path) == mesh
    path.write_bytes(path.read_bytes().replace(b"element face %d" % count, b"element face 999"))
    with pytest.raises(ValueError, match="claims 999 faces in"):
        has_faces(path)


def test_non_finite_values_are_not_written(tmp_path: Path) -> None:
    raw = random_raw(3, 0)
    raw["scaling"][1, 1] = float("nan")
    with pytest.raises(ValueError, match=r"^scaling has"):
        GaussianModel(raw).save_ply(tmp_path / "x.ply")
    assert list(tmp_path.iterdir()) == []
