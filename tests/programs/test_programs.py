"""Exports opened in other programs: each shows them as our own render does, or a reason is known why it does not."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest
import torch

from exporting.formats import WriteOptions, write_splats
from exporting.targets import frame_for
from scene.asset import Asset, open_asset
from scene.axes import OURS
from tests.programs.assets import stretched
from tests.programs.browser import installed
from tests.programs.cells import GOAL, OUTLINE_GOAL
from tests.programs.kernels import OURS as OUR_KERNEL
from tests.programs.kernels import drawn
from tests.programs.museum import PACKAGES, Museum, cameras, compared, published
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


def test_the_page_of_the_recipes_shows_what_we_render(modules: Path, tmp_path: Path) -> None:
    shown, own = published(tmp_path, modules)
    psnr, outline = compared([shown], [own])
    assert psnr > GOAL
    assert outline > OUTLINE_GOAL


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="pip install bpy")
def test_blender_shows_what_we_render(museum: Museum) -> None:
    cells = list(museum.blend())
    assert cells
    assert [cell for cell in cells if not is_right(cell)] == []


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
    tool = modules / "@playcanvas/splat-transform/bin/cli.mjs"
    subprocess.run(["node", tool, "-q", "-g", "cpu", ours, theirs], check=True)
    here, there = (open_asset(path, frame.axes).gaussians.state_dict() for path in (ours, theirs))
    for name in ("xyz", "f_dc", "f_rest", "opacity", "scaling"):
        torch.testing.assert_close(there[name], here[name], atol=1e-5, rtol=0)
    turns = [torch.nn.functional.normalize(each["rotation"], dim=-1) for each in (here, there)]
    # .splat has bytes for them, whose length each reader may keep.
    assert float((turns[0] * turns[1]).sum(dim=-1).abs().min()) > 1 - 1e-4
