"""Exports opened in other programs: each shows them as our own render does, or a reason is known why it does not."""

from __future__ import annotations

import importlib.util
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import gsply.sog_reader
import numpy as np
import pytest

from exporting.formats import WriteOptions, write_splats
from exporting.targets import frame_for
from scene.asset import Asset, open_asset
from scene.axes import OURS, Y_UP, in_axes
from scene.splats.table import Splats
from tests.exporting.assets import random_gaussians
from tests.exporting.steps import STEPS, Tolerance, assert_within
from tests.programs.assets import stretched
from tests.programs.browser import installed
from tests.programs.cells import GOAL, OUTLINE_GOAL
from tests.programs.kernels import OURS as OUR_KERNEL
from tests.programs.kernels import Kernel, drawn
from tests.programs.museum import (
    PACKAGES,
    Museum,
    camera_of_recipes,
    cameras,
    compared,
    published,
    recipes,
)
from tests.programs.reasons import is_right

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def modules() -> Path:
    found = installed()
    if found is None:
        pytest.skip("npm is not installed")
    return found


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Museum:
    return Museum(tmp_path_factory.mktemp("museum"))


def test_the_pictures_that_prove_reasons_are_our_own_render_but_for_the_reason(museum: Museum) -> None:
    for name, gaussians in museum.assets.items():
        psnr, _ = compared(drawn(gaussians, cameras(), OUR_KERNEL, gaussians.sh_degree), museum.own[name])
        assert psnr > 70


@pytest.mark.parametrize("program", PACKAGES)
def test_a_program_of_npm_shows_what_we_render(program: str, museum: Museum, modules: Path) -> None:
    cells = list(museum.browse(program, modules))
    assert cells
    assert [cell for cell in cells if not is_right(cell)] == []


@pytest.mark.parametrize(("number", "kernel"), [(0, OUR_KERNEL), (1, Kernel(2.0, paler=True))])
def test_the_pages_of_the_recipes_show_what_we_render(
    number: int, kernel: Kernel, museum: Museum, modules: Path, tmp_path: Path
) -> None:
    shown = published(recipes()[number], tmp_path, modules)
    psnr, outline = compared([shown], drawn(museum.assets["plain"], camera_of_recipes(), kernel, 0))
    assert psnr > GOAL
    assert outline > OUTLINE_GOAL


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="pip install bpy")
def test_blender_shows_what_we_render(museum: Museum) -> None:
    cells = list(museum.blend())
    assert cells
    assert [cell for cell in cells if not is_right(cell)] == []


def splat_transform(modules: Path, *given: str | Path) -> None:
    tool = modules / "@playcanvas/splat-transform/bin/cli.mjs"
    subprocess.run(["node", tool, "-q", "-g", "cpu", *given], check=True)


@pytest.mark.parametrize(
    ("suffix", "version"),
    [(".compressed.ply", 3), (".splat", 3), (".spz", 3), (".spz", 4), (".sog", 3)],
)
def test_splat_transform_reads_the_numbers_that_we_read(
    suffix: str, version: int, modules: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / "theirs.ply"
    frame = frame_for("supersplat", suffix)
    write_splats(ours, Asset(stretched(), OURS), frame, how=WriteOptions(spz_version=version))
    splat_transform(modules, ours, theirs)
    here, there = (Splats.of(open_asset(path, frame.axes).gaussians) for path in (ours, theirs))
    # .splat has bytes for rotations, whose length each reader may keep.
    assert_within(there, here, Tolerance(1e-5, 1e-5, 1.5e-2, 1e-5, 1e-5, 1e-5))


@pytest.mark.parametrize(
    ("suffix", "options", "step"),
    [
        (".ply", [], STEPS[".ply"]),
        (".compressed.ply", [], replace(STEPS[".compressed.ply"], opacities=1 / 255)),
        # It keeps 12 bits after the point, and 5 and 4 bits of harmonics.
        (".spz", ["--spz-version", "3"], replace(STEPS[".spz"], means=2**-13, rest=8.5 / 128)),
        (".spz", ["--spz-version", "4"], replace(STEPS[".spz"], means=2**-13, rest=8.5 / 128)),
        # Its palette has fewer entries than these harmonics need: another reader must find the same.
        (".sog", [], replace(STEPS[".sog"], opacities=1 / 255, rest=math.inf)),
        (".glb", [], STEPS[".splat.glb"]),
    ],
)
def test_what_splat_transform_writes_is_read_within_its_steps(
    suffix: str, options: list[str], step: Tolerance, modules: Path, tmp_path: Path
) -> None:
    gaussians, source, path = random_gaussians(700, 3), tmp_path / "source.ply", tmp_path / f"theirs{suffix}"
    turned = frame_for("supersplat", ".ply")
    write_splats(source, Asset(gaussians, OURS), turned)
    splat_transform(modules, *options, source, path)
    found = Splats.of(open_asset(path).gaussians)
    # It turns glTF by half a turn about z, to y up, and keeps other formats' numbers.
    truth = Splats.of(in_axes(gaussians, Y_UP if suffix == ".glb" else turned.axes))
    assert_within(found, truth, step)
    if suffix == ".sog":
        theirs = gsply.sog_reader.sogread(path)
        np.testing.assert_allclose(found.harmonics[:, 1:], theirs.shN, atol=1e-5)
