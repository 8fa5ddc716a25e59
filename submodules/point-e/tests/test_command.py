"""Run `python -m point_e`: what it writes, prints and returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from plyfile import PlyData
from tiny_folders import FINE, IMAGES, TEXT, write_folder

import point_e
from point_e import pipeline
from point_e.__main__ import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("point-e") / "tiny", TEXT)


def command(folder: Path, *arguments: str) -> list[str]:
    return ["--model", str(folder), "--device", "cpu", "--offline", *arguments]


@pytest.mark.thorough
def test_a_process_writes_what_the_api_makes(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "corgi.ply"
    arguments = command(folder, "a corgi", "-o", str(path), "--steps", "2", "--seed", "3")
    done = subprocess.run(
        [sys.executable, "-m", "point_e", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{path}: {FINE} points\n"), done.stderr
    cloud = point_e.load(folder).from_text("a corgi", steps=2, seed=3, progress=False)
    vertices = PlyData.read(str(path))["vertex"]
    points = torch.stack([torch.from_numpy(vertices[axis].copy()) for axis in "xyz"], dim=1)
    torch.testing.assert_close(points, cloud.points, rtol=1e-5, atol=1e-5)


def test_an_image_and_npz(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", IMAGES)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    image, output = str(tmp_path / "red.png"), tmp_path / "red.npz"
    assert (
        main(command(folder, "--image", image, "-o", str(output), "--steps", "1", "--guidance-scale", "2"))
        == 0
    )
    assert output.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a corgi", "-o", "corgi.obj"], "the output 'corgi.obj' must end in .ply or .npz"),
        (["a corgi", "-o", "/dev/null/corgi.ply"], "cannot be written: Not a directory"),
        (["", "-o", "corgi.ply"], "the prompt is blank"),
        (["a corgi", "-o", "corgi.ply", "--steps", "0"], "steps is 0"),
        (["--image", "none.png", "-o", "corgi.ply"], "the image 'none.png' cannot be read"),
        (["a corgi", "-o", "corgi.ply", "--clip", "none"], "CLIP 'none' is neither a folder here nor"),
        (["a corgi", "-o", "corgi.ply", "--device", "abacus"], "device is 'abacus'"),
        (["-o", "corgi.ply"], "this model needs text"),
    ],
)
def test_what_goes_wrong_is_one_line_and_1(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command(folder), *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("point_e: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_looked_at_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "load_model", None)
    assert main(command(folder, "a corgi", "-o", "corgi.obj")) == 1


@pytest.mark.parametrize(
    "arguments",
    [["a corgi"], ["-o", "corgi.ply"], ["a corgi", "--image", "corgi.png", "-o", "corgi.ply"],
     ["a corgi", "-o", "corgi.ply", "--steps", "many"]],
)  # fmt: skip
def test_a_command_line_without_sense_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: point_e ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_is_130_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    arguments = command(folder, "a corgi", "-o", str(tmp_path / "corgi.ply"), "--steps", "1000000")
    with subprocess.Popen(
        [sys.executable, "-m", "point_e", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What runs in the background of a shell ignores the signal, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        said = b""
        while b"base" not in said and (byte := process.stderr.read(1)):  # until it samples
            said += byte
        process.send_signal(signal.SIGINT)
        said += process.communicate()[1]
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert said.endswith(b"point_e: interrupted\n")
    assert list(tmp_path.iterdir()) == []
