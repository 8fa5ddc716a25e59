"""Run the portable build on a processor that is not this one: compiled for it, in an emulator, held against
the twin.

Debian's g++-aarch64-linux-gnu and qemu-user-static bring what it needs; without them it is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diff_gaussian_rasterization import RasterOutput
from diff_gaussian_rasterization.function import PARAMETERS

PACKAGE = Path(__file__).parents[1]
CSRC = PACKAGE / "diff_gaussian_rasterization" / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", shutil.which("qemu-aarch64-static") or "qemu-aarch64"

CASES = [
    {"count": 200, "views": 3, "width": 97, "height": 70, "degree": 1},
    {"count": 120, "views": 2, "width": 130, "height": 65, "degree": 3},
    {"count": 150, "degree": None, "covariances": True},
    {"count": 1, "width": 1, "height": 1, "size": 0.5},
    {"count": 40, "width": 200, "height": 90, "size": 1.0},
    {"count": 1500, "width": 24, "height": 20, "size": 0.3},
]

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f"needs {COMPILER} and {EMULATOR}"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("cross") / "render"
    sources = [str(PACKAGE / "tests" / "cross" / "render.cpp"), *map(str, sorted(CSRC.glob("*.cpp")))]
    flags = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-pthread", "-static", "-iquote", str(CSRC)]
    subprocess.run([COMPILER, *flags, *sources, "-o", str(program)], check=True)
    return program


def _write(path: Path, scene: Any, antialiasing: bool, upstream: list[np.ndarray]) -> None:
    g, cameras = scene.gaussians, scene.cameras
    coefficients = g["shs"].shape[1] if "shs" in g else 0
    views, count = len(cameras["viewmats"]), len(g["means"])
    sizes = [
        count,
        views,
        cameras["width"],
        cameras["height"],
        cameras["sh_degree"],
        coefficients,
        antialiasing,
    ]
    given = [g[name].numpy() if name in g else np.zeros(0) for name in PARAMETERS]
    given += [cameras[name].numpy() for name in ("viewmats", "focals", "principals", "background")]
    arrays = [np.array(sizes, np.int32), *(a.astype(np.float32) for a in (*given, *upstream))]
    with path.open("wb") as file:
        for array in arrays:
            file.write(np.int32(array.size).tobytes() + array.tobytes())


def _read(
    path: Path, expected: Any, cameras: dict[str, Tensor]
) -> tuple[RasterOutput, dict[str, Tensor], dict[str, Tensor]]:
    data, offset = path.read_bytes(), 0

    def take(like: Tensor, kind: type = np.float32) -> Tensor:
        nonlocal offset
        numbers = np.frombuffer(data, kind, like.numel(), offset).copy()
        offset += numbers.nbytes
        return torch.from_numpy(numbers).reshape(like.shape)

    out, gradients = expected.output, expected.gradients
    images = {name: take(getattr(out, name)) for name in ("rgb", "depth", "alpha", "means2d")}
    whole = {name: take(getattr(out, name), np.int32) for name in ("radii", "counts")}
    found = {name: take(gradients[name]) for name in PARAMETERS if name in gradients}
    of_cameras = {name: take(gradient) for name, gradient in cameras.items()}
    found["means2d"] = take(gradients["means2d"])
    assert offset == len(data)
    return RasterOutput(**images, **whole), found, of_cameras


@pytest.mark.parametrize("antialiasing", [False, True], ids=["plain", "antialiased"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_aarch64_agrees_with_the_twin(
    case: dict[str, Any], antialiasing: bool, program: Path, tools: Any, tmp_path: Path
) -> None:
    scene = tools.scene(**case)
    expected = tools.render(scene, "reference", torch.float64, antialiasing=antialiasing)
    rng = torch.Generator().manual_seed(99)  # as in tools.render
    images = (expected.output.rgb, expected.output.depth, expected.output.alpha)
    upstream = [torch.randn(image.shape, generator=rng).numpy() for image in images]
    _write(tmp_path / "scene", scene, antialiasing, upstream)
    subprocess.run([EMULATOR, str(program), str(tmp_path / "scene"), str(tmp_path / "result")], check=True)
    cameras = tools.camera_gradients(scene, "reference", torch.float64, antialiasing=antialiasing)
    output, gradients, of_cameras = _read(tmp_path / "result", expected, cameras)
    left = torch.from_numpy(upstream[0]) * (1 - output.alpha)
    gradients["background"] = left.sum(dim=(2, 3))  # which the Python side computes
    tools.agree(type(expected)(output, gradients), expected)
    for name, gradient in cameras.items():
        assert (of_cameras[name] - gradient).norm() <= 1e-3 * gradient.norm(), name
