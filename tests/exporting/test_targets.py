"""Presets of programs, sizes, and where an asset stands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import export
from exporting.formats import MESHES, SPLATS, write_splats
from exporting.pose import Pose, bounds_of, pose_for
from exporting.targets import TARGETS, Frame, frame_for, length
from scene.asset import Asset, open_asset
from scene.axes import OURS, in_axes
from tests.exporting.assets import on_surface, random_gaussians, spiral


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A ball of radius 0.5 around (0.1, 0, 0.2)."""
    normals = spiral(800)
    surface = 0.5 * normals + torch.tensor([0.1, 0.0, 0.2])
    on_surface(surface, normals, 0.5 + 0.4 * normals, 0.05).save_ply(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


def test_every_program_takes_formats_that_are_written() -> None:
    for frames in TARGETS.values():
        assert set(frames) <= {*SPLATS, *MESHES}
        assert all(str(frame).startswith("up ") for frame in frames.values())


@pytest.mark.parametrize(
    ("program", "suffix", "line"),
    [
        ("spark", ".spz", "for spark: up y, front z, metres"),
        ("supersplat", ".ply", "for supersplat: up -y, front z, metres"),
        ("unity", ".ply", "for unity: up y, front z, left-handed, metres"),
        ("unreal", ".ply", "for unreal: up z, front x, left-handed, centimetres"),
        ("cesium", ".spz.glb", "for cesium: up y, front z, metres"),
    ],
)
def test_a_program_chooses_format_axes_hand_and_unit(
    ball: Path, tmp_path: Path, program: str, suffix: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert (
        export.main([str(ball), "--input_axes", OURS, "-o", str(tmp_path / "toy.v2"), "--for", program]) == 0
    )
    assert [message.split("; ")[1] for message in caplog.messages] == [line]
    found = open_asset(tmp_path / f"toy.v2{suffix}", frame_for(program, suffix).axes)
    middle = found.upright().means.detach().mean(dim=0) / frame_for(program, suffix).unit
    torch.testing.assert_close(middle, torch.tensor([0.1, 0.0, 0.2]), atol=1e-3, rtol=0)


def test_unreal_is_in_centimetres_and_mirrored() -> None:
    """Its x is the front, y the right and z up."""
    frame = frame_for("unreal", ".ply")
    one = in_axes(random_gaussians(1, 0), frame.axes)
    x, y, z = random_gaussians(1, 0).means[0].tolist()
    assert one.means[0].tolist() == pytest.approx([x, -y, z])
    assert frame.unit == 100


def test_sizes_and_heights_are_those_of_what_is_written(tmp_path: Path, ball: Path) -> None:
    files = {suffix: str(tmp_path / f"x{suffix}") for suffix in (".ply", ".stl", ".splat.glb")}
    small = ["--quiet", "--faces", "300", "--texture", "64", "--resolution", "32", "--views", "8"]
    place = ["--size", "30cm", "--ground", "--input_axes", OURS]
    assert export.main([str(ball), "-o", *files.values(), *small, *place]) == 0
    triangles = np.fromfile(files[".stl"], np.uint8)[84:].reshape(-1, 50)[:, 12:48].copy().view("<f4")
    low, high = triangles.reshape(-1, 3).min(axis=0), triangles.reshape(-1, 3).max(axis=0)
    assert float((high - low).max()) == pytest.approx(300, rel=1e-5)
    assert low[2] == pytest.approx(0, abs=1e-4)
    # Gaussians of the same command stand in the same place.
    for suffix in (".ply", ".splat.glb"):
        found = bounds_of(open_asset(Path(files[suffix])).upright())
        assert float((found[1] - found[0]).max()) == pytest.approx(0.3, rel=0.1)
        assert float(found[0, 2]) == pytest.approx(0, abs=0.02)
    alone = tmp_path / "alone.ply"
    assert export.main([str(ball), "-o", str(alone), "--quiet", *place]) == 0
    found = bounds_of(open_asset(alone).upright())
    assert float((found[1] - found[0]).max()) == pytest.approx(0.3, rel=1e-4)
    assert float(found[0, 2]) == pytest.approx(0, abs=1e-5)


def test_bounds_reach_as_far_as_gaussians_are_seen() -> None:
    normals = spiral(4000)
    low, high = bounds_of(on_surface(0.5 * normals, normals, normals.abs(), 0.02))
    torch.testing.assert_close(high, torch.full((3,), 0.5, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(low, -high, atol=0.01, rtol=0)
    assert pose_for(torch.stack([low, high]), None, False) == Pose()


def test_a_pose_scales_everything_about_gaussians(tmp_path: Path) -> None:
    gaussians = random_gaussians(20, 3)
    write_splats(tmp_path / "x.ply", Asset(gaussians, OURS), Frame(OURS), Pose(0.5, 2.0))
    found = open_asset(tmp_path / "x.ply").gaussians
    torch.testing.assert_close(found.means, 0.5 * gaussians.means + torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(found.raw()["scaling"], gaussians.raw()["scaling"] + math.log(0.5))
    assert torch.equal(found.shs, gaussians.shs)


def test_cesium_gets_tiles_around_its_gaussians(tmp_path: Path) -> None:
    """3D Tiles have z up: what is at glTF's (x, y, z) is at their (x, -z, y)."""
    gaussians = random_gaussians(300, 1)
    write_splats(tmp_path / "toy.spz.glb", Asset(gaussians, OURS))
    tiles = json.loads((tmp_path / "toy.tileset.json").read_text())
    content = tmp_path / tiles["root"]["content"]["uri"]
    x, y, z = open_asset(content).gaussians.means.detach().numpy().T
    box = np.array(tiles["root"]["boundingVolume"]["box"]).reshape(4, 3)
    assert (np.abs(np.stack([x, -z, y], axis=1) - box[0]) < np.diag(box[1:])).all()
    # Cesium looks at these before it draws Gaussians.
    document = json.loads(
        content.read_bytes()[20:].split(b"BIN\0")[0][: int.from_bytes(content.read_bytes()[12:16], "little")]
    )
    needs = tiles["extensions"]["3DTILES_content_gltf"]["extensionsRequired"]
    assert needs == document["extensionsRequired"]
    assert needs == ["KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2"]


@pytest.mark.parametrize(
    ("text", "metres"), [("0.3m", 0.3), ("30 cm", 0.3), ("300MM", 0.3), ("2", 2.0), ("1e-1m", 0.1)]
)
def test_lengths_have_units(text: str, metres: float) -> None:
    assert length(text) == pytest.approx(metres)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-o x.ply --size 3ft", "size is '3ft', but it must be a length above 0, such as 0.3m"),
        ("-o x.ply --size nan", "size is 'nan', but"),
        ("-o x.ply --size 0m", "size is '0m', but"),
        ("-o x.sog --for unity", "--for unity writes .ply, .glb, .obj, but not .sog."),
        ("-o x.glb --merge", "'x.glb' needs seams for its texture: --merge is for .stl, .3mf, .mesh.ply."),
        ("-o x.splat.usdz --axes -y,-z", "axes is '-y,-z', but USD has right-handed axes with y or z up."),
        ("-o x.splat.usdz --axes y,z,left", "axes is 'y,z,left', but USD has right-handed axes"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(
    ball: Path,
    tmp_path: Path,
    arguments: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main([str(ball), "--input_axes", OURS, *arguments.split()]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"export.py: {words}")
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))
