from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from config.schema import Config
from exporting.formats import write_splats
from exporting.targets import Frame
from scene.asset import Asset
from scene.gaussian_model import GaussianModel
from scene.initialize import CONVENTIONS, initialize
from scene.point_cloud import upright
from tests.changed import changed
from tests.scene.meshes import box, exported
from utils.spherical_harmonics import dc_to_rgb

HOST = torch.device("cpu")


def start(shape: str, count: int = 2000, seed: int = 0, **keys: Any) -> GaussianModel:
    config = changed(Config(), init_shape=shape, init_num_pts=count, **keys)
    return initialize(config, torch.Generator().manual_seed(seed), HOST)


def test_the_sphere_is_a_ball_of_half_a_unit_seen_alike_from_everywhere() -> None:
    means = start("sphere").means.detach()
    radii = means.norm(dim=1)
    assert radii.max() <= 0.5 + 1e-6
    assert radii.mean() == pytest.approx(0.25, abs=0.01)
    directions = means / radii[:, None]
    assert directions.mean(dim=0).norm() < 0.05
    torch.testing.assert_close(directions.T @ directions / 2000, torch.eye(3) / 3, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("shape", "edges"),
    [("box", (1.0, 1.0, 1.0)), ("rectangle_x", (0.6, 1.2, 0.5)), ("rectangle_z", (0.8, 0.6, 1.2))],
)
def test_cuboids_fill_their_edges(shape: str, edges: tuple[float, float, float]) -> None:
    low, high = start(shape).means.aminmax(dim=0)
    torch.testing.assert_close(high - low, torch.tensor(edges), rtol=0.01, atol=0)
    torch.testing.assert_close(high + low, torch.zeros(3), rtol=0, atol=0.01)


def test_the_scene_lies_beyond_the_cameras() -> None:
    radii = start("scene").means.norm(dim=1)
    assert 16.5 - 1e-3 <= radii.min() < radii.max() <= 17.5 + 1e-3


@pytest.mark.parametrize("shape", ["sphere", "box", "rectangle_x", "rectangle_z", "scene"])
def test_every_shape_is_grey_faint_finite_and_seeded(shape: str) -> None:
    model = start(shape, sh_degree=2)
    assert len(model) == 2000
    assert model.sh_degree == 2
    assert model.nonfinite() == {}
    colors = dc_to_rgb(model.shs[:, 0])
    assert bool(((colors >= 0.5) & (colors < 0.502)).all())
    assert len(colors.unique(dim=0)) > 1900
    torch.testing.assert_close(model.opacities, torch.full((2000, 1), 0.1))
    again, other = start(shape, sh_degree=2), start(shape, seed=1, sh_degree=2)
    assert torch.equal(model.means, again.means)
    assert not torch.equal(model.means, other.means)


def random_cloud(count: int = 50) -> tuple[Tensor, Tensor]:
    points, colors = torch.rand(2, count, 3, generator=torch.Generator().manual_seed(0))
    return points - 0.5, colors


def gaussians(path: Path, sh_degree: int = 0, count: int = 50) -> GaussianModel:
    """Write a file of Gaussians that all differ, and return them."""
    model = GaussianModel.from_points(*random_cloud(count), sh_degree)
    rng = torch.Generator().manual_seed(1)
    model.set_raw(
        {name: tensor + torch.rand(tensor.shape, generator=rng) for name, tensor in model.raw().items()}
    )
    model.save_ply(path)
    return model


def test_a_file_keeps_its_points_and_colours(tmp_path: Path) -> None:
    points, colors = random_cloud()
    GaussianModel.from_points(points, colors, 0).save_ply(tmp_path / "x.ply")
    model = start(str(tmp_path / "x.ply"))
    torch.testing.assert_close(model.means.detach(), points)
    torch.testing.assert_close(dc_to_rgb(model.shs[:, 0]).detach(), colors)


def test_gaussians_as_a_point_cloud_give_their_means_and_base_colours(tmp_path: Path) -> None:
    source = gaussians(tmp_path / "x.ply", sh_degree=2)
    model = start(str(tmp_path / "x.ply"), default_radius=10.0)
    torch.testing.assert_close(model.means, source.means)
    torch.testing.assert_close(
        dc_to_rgb(model.shs[:, 0]).clamp(0, 1), dc_to_rgb(source.shs[:, 0]).clamp(0, 1)
    )
    assert model.sh_degree == 0


def test_a_large_file_is_thinned_to_a_subset(tmp_path: Path) -> None:
    points, colors = random_cloud()
    GaussianModel.from_points(points, colors, 0).save_ply(tmp_path / "x.ply")
    model = start(str(tmp_path / "x.ply"), count=20)
    assert len(model) == 20
    rows = [(points == mean).all(dim=1).nonzero().item() for mean in model.means]
    assert rows == sorted(set(rows))


HEADER = "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_points_are_a_start(tmp_path: Path, count: int) -> None:
    path = tmp_path / "few.ply"
    path.write_text(HEADER.format(count) + "".join(f"{row} 0 {row * row}\n" for row in range(count)))
    model = start(str(path))
    assert len(model) == count
    assert model.nonfinite() == {}


def test_points_that_are_not_finite_do_not_count_against_init_num_pts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nan.ply"
    path.write_text(
        HEADER.format(40) + "nan 0 0\n" * 20 + "".join(f"0.5 0.5 {row / 40}\n" for row in range(20))
    )
    with caplog.at_level(logging.WARNING):
        model = start(str(path), count=15)
    assert len(model) == 15
    assert "20 of 40 points are not finite" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER.format(0), "no points"),
        (HEADER.format(2) + "nan nan nan\n1 inf 2\n", "only points that are not finite"),
        (HEADER.format(3) + "1 2 3\n", "cannot be read"),
    ],
)
def test_a_file_without_points_gets_a_sentence(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "none.ply"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        start(str(path))


def test_an_unknown_shape_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="init_shape is 'spheer', but it must be 'sphere', 'box'"):
        start("spheer")


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "gltf", "stl"])
def test_a_file_that_is_not_there_or_a_folder_gets_a_sentence(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder.{suffix}").mkdir()
    for name in ("nothing", "folder"):
        with pytest.raises(FileNotFoundError, match="not there, but it must be a"):
            start(str(tmp_path / f"{name}.{suffix}"))


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl"])
@pytest.mark.parametrize("axes", [None, "-x,z"])
def test_a_mesh_stands_upright_as_its_format_or_init_axes_has_it(
    tmp_path: Path, suffix: str, axes: str | None
) -> None:
    size = (0.8, 0.4, 0.2)
    path = exported(box(size), tmp_path / f"box{suffix.upper()}")
    model = start(path, count=3000, init_axes=axes)
    low, high = model.means.detach().aminmax(dim=0)
    expected = upright(torch.tensor([size]), axes or CONVENTIONS[suffix])[0].abs()
    torch.testing.assert_close(high - low, expected, atol=0.01, rtol=0)
    assert len(model) == 3000


def test_a_mesh_in_other_units_is_scaled_to_the_view(tmp_path: Path) -> None:
    model = start(exported(box((800.0, 400.0, 200.0)), tmp_path / "mm.stl"))
    # Three quarters of half the height of what the default camera sees.
    assert float(model.means.detach().norm(dim=1).max()) == pytest.approx(0.75 * 3.5 * 0.28215, rel=0.02)


@pytest.mark.parametrize("sh_degree", [0, 1, 3])
def test_gaussians_to_continue_from_are_taken_whole_and_as_they_are(tmp_path: Path, sh_degree: int) -> None:
    source = gaussians(tmp_path / "x.ply", sh_degree=1)
    path = str(tmp_path / "x.ply")
    model = start("nowhere.ply", count=4, pretrained_model_path=path, sh_degree=sh_degree)
    assert model.sh_degree == sh_degree
    for name, tensor in source.raw().items():
        if name != "f_rest":
            assert torch.equal(model.raw()[name], tensor), name
    kept = min(source.shs.shape[1], model.shs.shape[1])
    assert torch.equal(model.shs[:, :kept], source.shs[:, :kept])
    assert not model.shs[:, kept:].any()
    assert all(parameter.requires_grad for parameter in model.raw().values())


def test_gaussians_to_continue_from_are_turned_to_our_axes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = gaussians(tmp_path / "x.ply", sh_degree=1)
    write_splats(tmp_path / "noted.ply", Asset(source, "z,x"))
    write_splats(tmp_path / "x.splat", Asset(source, "z,x"), Frame("-x,y"))
    for name, axes in (("noted.ply", None), ("x.splat", "-x,y")):
        model = start("sphere", pretrained_model_path=str(tmp_path / name), input_axes=axes, sh_degree=0)
        distances = (source.means[:, None] - model.means[None]).detach().norm(dim=2)
        assert float(distances.amin(dim=1).max()) < 1e-6
    (dropped,) = caplog.messages
    assert "has harmonics of degree 1: those above sh_degree 0 are dropped" in dropped


def test_no_gaussians_to_continue_from_get_a_sentence(tmp_path: Path) -> None:
    gaussians(tmp_path / "x.ply", count=0)
    with pytest.raises(ValueError, match=r"x\.ply' holds no Gaussians, but an asset has at least 1"):
        start("sphere", pretrained_model_path=str(tmp_path / "x.ply"))
    (tmp_path / "y.ply").write_text(HEADER.format(1) + "1 2 3\n")
    with pytest.raises(ValueError, match="lacks the vertex property"):
        start("sphere", pretrained_model_path=str(tmp_path / "y.ply"))
