"""The command for exports."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import export
from exporting.mesh.textured import TexturedMesh
from scene.asset import load_asset
from scene.gaussian_model import GaussianModel
from tests.exporting.assets import on_surface, random_gaussians, spiral
from utils.run_folder import RunFolder

SMALL = ["--quiet", "--faces", "300", "--texture", "64", "--resolution", "24", "--views", "8"]


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    normals = spiral(800)
    on_surface(0.5 * normals, normals, 0.5 + 0.4 * normals, 0.05).save_ply(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


def test_one_command_writes_every_format(
    ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [f"x{suffix}" for suffix in (*export.SPLATS, *export.MESHES)]
    files = [str(tmp_path / "out" / name) for name in names]
    assert export.main([str(ball), "-o", *files, *SMALL]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *names,
        "x.mtl",
        "x.png",
        "x.tileset.json",
    }
    assert capfd.readouterr() == ("", "")


def test_it_shows_its_progress(ball: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(ball), "-o", str(tmp_path / "x.glb"), *SMALL[1:]]) == 0
    told = capfd.readouterr().err
    assert "33/33" in told
    assert "texture" in told


def test_a_run_gives_its_last_gaussians(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step, count in ((900, 3), (1000, 4)):
        random_gaussians(count, 0).save_ply(run.point_cloud(step))
    assert len(load_asset(tmp_path)) == 4
    random_gaussians(5, 0).save_ply(run.asset)
    assert len(load_asset(tmp_path)) == 5
    assert len(load_asset(run.point_cloud(900))) == 3


@pytest.mark.parametrize(
    ("asset", "arguments", "words"),
    [
        ("missing.ply", "-o x.glb", "'{0}/missing.ply' is not there"),
        ("empty", "-o x.glb", "'{0}/empty' holds no Gaussians yet: give a run's folder"),
        ("none.ply", "-o x.spz", "'{0}/none.ply' holds no Gaussians, but an asset has at least 1."),
        ("text.ply", "-o x.ply", "cannot be read as a PLY file"),
        ("ball.ply", "-o x.fbx", "the output is 'x.fbx', but its name must end in one of"),
        ("ball.ply", "-o x.ply --axes up", "axes is 'up', but it must name the directions"),
        ("ball.ply", "-o x.glb --device abacus", "device is 'abacus'"),
        ("ball.ply", "-o ball.ply/x.spz", "ball.ply"),
        ("faint.ply", "-o x.obj --quiet --resolution 16 --views 8", "the asset is so faint, or so thin"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    ball: Path,
    tmp_path: Path,
    asset: str,
    arguments: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ply").write_text("hello")
    GaussianModel({name: t[:0] for name, t in random_gaussians(1, 0).state_dict().items()}).save_ply(
        "none.ply"
    )
    faint = random_gaussians(4, 0)
    faint.raw()["opacity"].data.fill_(-9.0)
    faint.save_ply("faint.ply")
    assert export.main([str(tmp_path / asset), *arguments.split()]) == 1
    told = capsys.readouterr().err
    assert told.startswith("export.py: ")
    assert words.format(tmp_path) in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_a_file_is_not_turned_twice(ball: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither what has a note of its axes, nor what a flag names; the axes may begin with a minus."""
    first, again, back, splat, named = (str(tmp_path / f"{name}.ply") for name in "abcde")
    assert export.main([str(ball), "-o", first, str(tmp_path / "x.splat"), "--quiet"]) == 0
    assert "has no note of its axes" in caplog.text
    caplog.clear()
    assert export.main([first, "-o", again, "--quiet"]) == 0
    assert export.main([first, "-o", back, "--axes", "z,x", "--quiet"]) == 0
    assert export.main([str(tmp_path / "x.splat"), "--input_axes", "-y,-z", "-o", splat, "--quiet"]) == 0
    assert not caplog.messages
    assert Path(again).read_bytes() == Path(first).read_bytes()
    means = {path: load_asset(Path(path)).means.detach() for path in (str(ball), back)}
    torch.testing.assert_close(means[back], means[str(ball)])
    torch.testing.assert_close(*(load_asset(Path(path)).means.mean(dim=0) for path in (splat, back)))
    assert export.main([str(ball), "--input_axes", "x", "-o", named]) == 1


@pytest.mark.parametrize("wrong", ["--faces 0", "--texture big", "--resolution 9999", "--views -1"])
def test_numbers_have_ranges(ball: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        export.main([str(ball), "-o", "x.glb", *wrong.split()])
    assert stopped.value.code == 2
    assert "must be a whole number from" in capsys.readouterr().err


def test_a_missing_library_is_told_before_anything_is_written(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xatlas" else found(name))
    files = [str(tmp_path / "x.spz"), str(tmp_path / "x.glb")]
    assert export.main([str(ball), "-o", *files]) == 1
    assert capsys.readouterr().err == 'export.py: a mesh needs xatlas: python -m pip install -e ".[mesh]".\n'
    assert not (tmp_path / "x.spz").exists()


def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "open_asset", None)
    (tmp_path / "file").touch()
    assert export.main([str(ball), "-o", str(tmp_path / "x.spz"), str(tmp_path / "file/x.glb")]) == 1
    assert re.fullmatch(r"export.py: .*file.*\n", capsys.readouterr().err)
    assert not (tmp_path / "x.spz").exists()


def test_it_says_where_a_mesh_is_open() -> None:
    none, some = torch.zeros(0, 3).numpy(), torch.tensor([[1.0, 2.0, 3.5], [0.0, 0.0, 0.0]]).numpy()
    rest = (none, none, none[:, :2], none.astype(int), none.astype("uint8"))
    shared = none[:, 0].astype(int)
    assert (
        export.closedness(TexturedMesh(*rest, none, shared)) == "The mesh is watertight after merging seams."
    )
    told = export.closedness(TexturedMesh(*rest, some, shared))
    assert "2 edges do not have two faces, the first one at (1, 2, 3.5)" in told
