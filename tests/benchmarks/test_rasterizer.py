"""The rasterizer's benchmark: its arithmetic, its adapters, and a table that no peer can stop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import rasterizer as script
import torch
from torch import Tensor

from diff_gaussian_rasterization import cpu, rasterize, reference
from diff_gaussian_rasterization.scene import Gaussians
from rasterizers import gsplat_cpu, gsplat_cuda, inria, measure, ours, peers
from rasterizers.peer import Images, Peer, Render
from rasterizers.scene import Scene, make_scene, mean_footprint

JOB = measure.Job(views=2, size=24, count=40, footprint=16.0, device="cpu", threads=1, repeats=2)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore our build and the threads, which a measurement chooses for its whole process."""
    monkeypatch.setenv(cpu.CHOICE, "")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def scene(count: int = 200, views: int = 2, size: int = 40, seed: int = 0) -> Scene:
    return make_scene(count, views, size, 20.0, "cpu", seed)


def test_scenes_are_the_same_every_time_and_differ_by_seed() -> None:
    one, same, other = scene(), scene(), scene(seed=1)
    for name, tensor in one.gaussians.items():
        assert torch.equal(tensor, same.gaussians[name])
        assert not torch.equal(tensor, other.gaussians[name])


@pytest.mark.parametrize("footprint", [12.0, 32.0])
def test_gaussians_cover_the_pixels_that_were_asked_for(footprint: float) -> None:
    """The mean is over all Gaussians, even where a part of them determined the scale."""
    made = make_scene(30_000, 1, 256, footprint, "cpu")
    assert mean_footprint(made, 1.0) == pytest.approx(footprint, rel=1e-4)
    with torch.no_grad():
        pairs = len(gsplat_pairs(made)[0])
    assert pairs / 30_000 == pytest.approx(footprint, rel=0.1)


def gsplat_pairs(made: Scene) -> gsplat_cpu.Pairs:
    """Pairs that gsplat's search finds for our projection."""
    p = reference.project(Gaussians(**made.gaussians, covariances=None, shs=None), made.views(), 0)
    xx, xy, yy = (p.covariances / reference.determinant(p.covariances)[:, None]).unbind(-1)
    columns = (p.means + 0.5, torch.stack([yy, -xy, xx], dim=-1), p.opacities, p.depths)
    size = made.cameras["width"]
    return gsplat_cpu.find_pairs(*(column[None] for column in columns), size, size, 0.2)


def test_medians_take_turns_and_leave_out_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_UP", 0.0)
    calls: list[int] = []

    def step(index: int) -> tuple[measure.Reading, Images]:
        calls.append(index)
        number = float(len(calls))
        return lambda: (number, 10 * number, 11 * number, None), (torch.tensor(number),)

    times, last, images = measure.medians([partial(step, 0), partial(step, 1)], repeats=5)
    assert calls == [0, 1, 0, 1, 0, 1, 0]
    assert times == (5.0, 50.0, 55.0, None)
    assert last == 0
    assert images == (torch.tensor(7.0),)


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 50 + 3), (4.0, 3 + 3), (61.0, 1)])
def test_slow_steps_are_repeated_less(seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps warm up, and three are timed; one that takes a minute is not repeated."""
    monkeypatch.setattr(measure, "WARM_UP", 0.0)
    now = 0.0
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now))
    calls: list[int] = []

    def step() -> tuple[measure.Reading, Images]:
        nonlocal now
        now += seconds
        calls.append(1)
        return lambda: (None, None, 1.0, 0.5), ()

    times, _, _ = measure.medians([step, step, step], repeats=50)
    assert times == (None, None, 1.0, 0.5)
    assert len(calls) == steps


def test_figures_of_our_builds_agree() -> None:
    for level in cpu.levels():
        peer = Peer(level, "", partial(ours.prepare_level, level=level))
        found = measure.figures(peer, JOB)
        assert found["total"] > 0
        assert found["psnr"] > 90
        assert found["gradients"] < 1e-4
        assert found["images"] == 3


def test_figures_tell_another_picture() -> None:
    def darker(made: Scene) -> Render:
        render = ours.prepare(made, "cpu")
        return lambda: tuple(0.9 * image for image in render())

    found = measure.figures(Peer("darker", "", darker), JOB)
    assert found["psnr"] < 40
    assert found["gradients"] == pytest.approx(0.1, rel=1e-3)


def die(made: Scene) -> Render:
    os._exit(9)


def test_no_peer_stops_the_table() -> None:
    """Peers that raise, die or need more memory than there is give a reason, each in a process of its own."""
    package = Path("nowhere")
    raises = measure.measure(Peer("raises", "1.0", partial(inria.prepare, package=package)), JOB)
    assert raises.why == "FileNotFoundError: nowhere has no compiled _C, --inria must name a folder with one."
    assert measure.measure(Peer("dies", "1.0", die), JOB).why == "its process ended with exit code 9"
    greedy = measure.measure(Peer("greedy", "1.0", die, bytes_per_pixel=1e15), JOB)
    assert greedy.why is not None
    assert greedy.why.startswith("needs about")


def test_a_scan_along_each_pixel() -> None:
    """Products and their gradient against a loop; runs of no length at either end."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.tensor([1, 1, 1, 2, 4, 4])
    factors = (0.1 + 0.9 * torch.rand(6, generator=rng)).double().requires_grad_()
    upstream = torch.randn(6, generator=rng).double()
    starts, counts = gsplat_cpu.pack(pixels, 6)
    assert counts.tolist() == [0, 3, 1, 0, 2, 0]
    before = [[j for j in range(i) if pixels[j] == pixels[i]] for i in range(6)]
    expected = torch.stack([factors[earlier].prod() for earlier in before])
    products = gsplat_cpu.exclusive_product(starts, counts, factors.detach())
    assert torch.allclose(products, expected)
    expected.backward(upstream)
    found = gsplat_cpu.exclusive_product_backward(starts, counts, factors.detach(), products, upstream)
    assert torch.allclose(found, factors.grad)


def test_pairs_are_those_that_a_search_of_every_pixel_finds() -> None:
    rng = torch.Generator().manual_seed(0)
    number, width, height = 30, 17, 11
    means = torch.rand(number, 2, generator=rng) * torch.tensor([20.0, 14.0]) - 1.5
    factor = torch.randn(number, 2, 2, generator=rng) * 2
    inverse = torch.linalg.inv(factor @ factor.mT + 0.3 * torch.eye(2))
    conics = inverse[:, [0, 0, 1], [0, 1, 1]]
    opacities, depths = torch.rand(number, generator=rng), torch.rand(number, generator=rng) + 0.1
    expected = []
    for pixel in range(width * height):
        centre = torch.tensor([pixel % width + 0.5, pixel // width + 0.5])
        left = 1.0
        for index in depths.argsort().tolist():
            offset = centre - means[index]
            alpha = min(0.999, (opacities[index] * torch.exp(-0.5 * offset @ inverse[index] @ offset)).item())
            if depths[index] <= 0.2 or alpha < 1 / 255:
                continue
            if left * (1 - alpha) <= 1e-4:
                break
            left *= 1 - alpha
            expected.append((index, pixel))
    ids, pixels = gsplat_cpu.view_pairs(means, conics, opacities, depths, width, height, 0.2)
    assert list(zip(ids.tolist(), pixels.tolist())) == expected


@pytest.mark.parametrize("given", [False, True])
def test_gsplat_in_torch_draws_the_same(given: bool) -> None:
    pytest.importorskip("gsplat")
    pytest.importorskip("nerfacc")
    found = measure.figures(Peer("gsplat", "", partial(gsplat_cpu.prepare, given=given)), JOB)
    assert found["psnr"] > 90
    assert found["gradients"] < 1e-3
    assert found["images"] == 3


def test_gsplat_on_cuda_is_asked_for_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in calls ours: pixel centres at a half, colors and depth in one image, channels last."""

    def rasterization(
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        *,
        near_plane: float,
        packed: bool,
        backgrounds: Tensor,
        render_mode: str,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        assert render_mode == "RGB+D"
        out = rasterize(
            means,
            scales,
            quats,
            opacities,
            colors=colors,
            viewmats=viewmats,
            focals=Ks[:, [0, 1], [0, 1]],
            principals=Ks[:, :2, 2] - 0.5,
            width=width,
            height=height,
            near=near_plane,
            background=backgrounds,
        )
        image = torch.cat([out.rgb, out.depth], dim=1).movedim(1, -1)
        return image, out.alpha.movedim(1, -1), {"means2d": out.means2d}

    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(rasterization=rasterization))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=1))
    found = measure.figures(Peer("gsplat", "", partial(gsplat_cuda.prepare, packed=True)), JOB)
    assert found["psnr"] > 90
    assert found["gradients"] < 1e-4
    assert found["images"] == 3


@pytest.mark.gpu
def test_ours_on_cuda_agrees_also_when_replayed() -> None:
    for peer in peers("cuda", [])[:2]:
        found = measure.figures(peer, replace(JOB, device="cuda"))
        assert found["total"] > 0
        assert found["psnr"] > 80
        assert found["gradients"] < 1e-3


FAKE = """
from typing import NamedTuple
import torch
from . import _C
import diff_gaussian_rasterization as ours

class GaussianRasterizationSettings(NamedTuple):
    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: torch.Tensor
    scale_modifier: float
    viewmatrix: torch.Tensor
    projmatrix: torch.Tensor
    sh_degree: int
    campos: torch.Tensor
    prefiltered: bool
    debug: bool

class GaussianRasterizer:
    def __init__(self, raster_settings):
        self.rasterizer = ours.GaussianRasterizer(ours.GaussianRasterizationSettings(*raster_settings))

    def __call__(self, **arguments):
        return _C.adapt(*self.rasterizer(**arguments))
"""
RETURNS = {
    "color, radii": 1,
    "color, radii, 1 / depth_alpha[:1].clamp(min=1e-3)": 1,
    "color, radii, depth_alpha": 3,
}


@pytest.mark.parametrize("returned", RETURNS)
def test_inrias_package_is_found_and_asked_for_the_same_picture(
    returned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in of the same name calls ours; what it returns depends on the branch."""
    package = tmp_path / inria.PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text(FAKE)
    (package / "_C.py").write_text(f"def adapt(color, radii, depth_alpha):\n    return {returned}\n")
    for name in ("inria_diff_gaussian_rasterization", "inria_diff_gaussian_rasterization._C"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert inria.packages([str(tmp_path)]) == inria.packages([str(package)]) == [package]
    found = measure.figures(Peer("inria", "", partial(inria.prepare, package=package)), JOB)
    assert found["images"] == RETURNS[returned]
    assert found["psnr"] > 90
    assert found["gradients"] < 1e-3


def test_ours_is_not_taken_for_inrias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = Path(cpu.__file__).parents[1]
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(own)])
    assert inria.packages([]) == [Path(inria.PACKAGE)]
    (tmp_path / inria.PACKAGE).mkdir()
    (tmp_path / inria.PACKAGE / "_C.so").touch()
    assert inria.packages([]) == [tmp_path / inria.PACKAGE]


def test_ratios_are_to_the_first_line_of_each_scene(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"memory": 1.0, "psnr": 99.0, "gradients": 1e-6, "images": 3}
    rows = [
        measure.Row("ours", "1", 1, 8, 10, 1.0, 1.0, 2.0, **shared),
        measure.Row("other", "2", 1, 8, 10, 3.0, 4.0, 7.0, **shared),
        measure.Row("absent", "", 1, 8, 10, why="No module named 'absent'"),
        measure.Row("ours", "1", 4, 8, 10, None, None, 4.0, **shared),
        measure.Row("other", "2", 4, 8, 10, 3.0, 4.0, 8.0, **shared),
    ]
    script.show(iter(rows))
    header, _, *lines = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    )
    assert [len(line) for line in lines] == [len(header)] * 5
    ratio = header.index("x ours")
    assert [line[ratio] for line in lines] == ["1.00", "3.50", "", "1.00", "2.00"]
    assert "not run: No module named 'absent'" in lines[2]


def test_the_script_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every peer has figures or a reason, ours and the twin figures, at a tiny size and in one process."""
    sizes = ["--size", "16", "--count", "20", "--views", "1", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["rasterizer.py", *sizes, "--one-process", "--json"])
    script.main()
    found = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__
    assert {row["views"] for row in found["rows"]} == {1, 2}
    for row in found["rows"]:
        assert (row["total"] is None) == (row["why"] is not None)
        if row["name"].startswith("our"):
            assert row["total"] > 0
            assert row["psnr"] > 90


def test_only_some_are_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first peer, which the ratios need, runs besides."""

    def not_run(peer: Peer, job: measure.Job) -> measure.Row:
        return measure.Row(peer.name, peer.version, job.views, job.size, job.count, why="not today")

    monkeypatch.setattr(script, "measure", not_run)
    monkeypatch.setattr(
        sys, "argv", ["rasterizer.py", "--only", "twin", "--size", "8", "--count", "9", "--views", "1"]
    )
    script.main()
    lines = [
        line.split("|")[4].strip() for line in capsys.readouterr().out.splitlines() if "not today" in line
    ]
    assert lines == [f"ours ({cpu.levels()[-1]})", "our twin in torch"]
